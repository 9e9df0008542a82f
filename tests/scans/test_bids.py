import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

import vqmri
from vqmri.scans import nifti
from vqmri.scans.bids import centred_affine, describe, scan_path, write_scan

SPACING = (1.0, 1.5, 2.5)
ABOUT = {"Seed": 3, "Sample": 0}


@pytest.fixture
def volume() -> np.ndarray:
    return np.random.default_rng(0).random((1, 6, 7, 9), dtype=np.float32)


def load_json(path: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(path.read_text())
    return values


def write(
    folder: Path,
    label: str,
    volume: np.ndarray,
    spacing: tuple[float, ...],
    about: dict[str, Any],
) -> Path:
    path = folder / scan_path(label, "T1w")
    write_scan(path, volume, spacing, about)
    return path


def test_the_centre_of_the_volume_is_the_origin() -> None:
    affine = centred_affine((6, 7, 9), SPACING)
    assert np.allclose(affine @ [2.5, 3.0, 4.0, 1.0], [0, 0, 0, 1])
    assert np.array_equal(affine[:3, :3], np.diag(SPACING))


def test_a_scan_loads_with_its_geometry(tmp_path: Path, volume: np.ndarray) -> None:
    path = write(tmp_path, "0003", volume, SPACING, ABOUT)
    image: Any = nib.load(path)
    assert image.get_data_dtype() == np.float32
    assert np.array_equal(np.asarray(image.dataobj), volume[0])
    assert np.allclose(image.affine, centred_affine((6, 7, 9), SPACING))
    assert nib.aff2axcodes(image.affine) == ("R", "A", "S")
    assert image.header.get_zooms() == pytest.approx(SPACING)
    assert image.header.get_xyzt_units()[0] == "mm"


def test_the_library_reads_what_it_wrote(tmp_path: Path, volume: np.ndarray) -> None:
    path = write(tmp_path, "0003", volume, SPACING, ABOUT)
    read, _ = nifti.read(path)
    assert np.array_equal(read.data, volume)
    assert read.spacing == pytest.approx(SPACING)


def test_equal_volumes_give_equal_bytes(
    tmp_path: Path, volume: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = write(tmp_path / "one", "0003", volume, SPACING, ABOUT)
    # A day later: gzip would write the time into its header.
    monkeypatch.setattr("time.time", lambda: 1e9)
    second = write(tmp_path / "two", "0003", volume, SPACING, ABOUT)
    for suffix in (".nii.gz", ".json"):
        one, two = (Path(str(p).removesuffix(".nii.gz") + suffix) for p in (first, second))
        assert one.read_bytes() == two.read_bytes()
    other = write(tmp_path / "three", "0003", volume * 0.5, SPACING, ABOUT)
    assert other.read_bytes() != first.read_bytes()


def test_the_layout_is_that_of_bids(tmp_path: Path, volume: np.ndarray) -> None:
    write(tmp_path, "0003", volume, SPACING, ABOUT)
    describe(tmp_path, name="samples", model="ab" * 32, labels=["0003"])
    files = sorted(p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file())
    assert files == [
        ".bidsignore",
        "README",
        "dataset_description.json",
        "participants.tsv",
        "sub-0003/anat/sub-0003_desc-synthetic_T1w.json",
        "sub-0003/anat/sub-0003_desc-synthetic_T1w.nii.gz",
    ]
    assert scan_path("0003", "T1w").as_posix() == files[-1]


def test_the_sidecar_says_that_the_scan_is_synthetic(tmp_path: Path, volume: np.ndarray) -> None:
    path = write(tmp_path, "0003", volume, SPACING, ABOUT)
    sidecar = load_json(path.with_name("sub-0003_desc-synthetic_T1w.json"))
    assert sidecar["Synthetic"] is True
    assert ABOUT.items() <= sidecar.items()


def test_the_description_says_what_made_it(tmp_path: Path) -> None:
    model = "ab" * 32
    describe(tmp_path, name="samples", model=model, labels=["0000", "0001"])
    description = load_json(tmp_path / "dataset_description.json")
    assert description["Name"] == "samples"
    assert description["DatasetType"] == "derivative"
    assert description["BIDSVersion"]
    (generated_by,) = description["GeneratedBy"]
    assert generated_by["Name"] == "vqmri"
    assert generated_by["Version"] == vqmri.__version__
    assert model in generated_by["Description"]
    lines = (tmp_path / "participants.tsv").read_text().splitlines()
    assert lines == ["participant_id", "sub-0000", "sub-0001"]


def test_a_volume_of_two_channels_is_no_scan(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="expected one channel, found 2"):
        write(tmp_path, "0", np.zeros((2, 4, 4, 4), dtype=np.float32), SPACING, {})
    assert not list(tmp_path.iterdir())
