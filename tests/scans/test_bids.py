import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

import vqmri
from vqmri.scans import nifti
from vqmri.scans.bids import centred_affine, describe, scan_path, write_scan
from vqmri.scans.volume import Channel

SPACING = (1.0, 1.5, 2.5)
ABOUT = {"Seed": 3, "Sample": 0}
IMAGE = (Channel("image"),)


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
    write_scan(folder, label, "T1w", volume, IMAGE, spacing, about)
    return folder / scan_path(label, "T1w")


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


def test_covariates_are_columns_of_the_participants(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"age": 61.5, "sex": "F"}, {"sex": None, "site": 2}]
    describe(tmp_path, name="samples", model="ab", labels=["0", "1"], covariates=rows)
    lines = (tmp_path / "participants.tsv").read_text().splitlines()
    assert lines == [
        "participant_id\tage\tsex\tsite",
        "sub-0\t61.5\tF\tn/a",
        "sub-1\tn/a\tn/a\t2",
    ]
    with pytest.raises(ValueError, match="zip"):
        describe(tmp_path, name="samples", model="ab", labels=["0"], covariates=rows)


@pytest.mark.parametrize(
    ("label_values", "dtype"),
    [
        ((0, 1, 2), np.uint8),
        ((0, 300, 7), np.uint16),
        ((0, -1, 5), np.int8),
        ((0, -1, 200), np.int16),
        ((0, 2**31 - 1, -4), np.int32),
    ],
)
def test_each_channel_is_a_file_and_a_label_map_has_its_values(
    tmp_path: Path, label_values: tuple[int, ...], dtype: type
) -> None:
    random = np.random.default_rng(0)
    label = random.integers(0, 3, (1, 6, 7, 9)).astype(np.float32)
    volume = np.concatenate([random.random((2, 6, 7, 9), dtype=np.float32), label])
    channels = (Channel("image"), Channel("T2w"), Channel("dseg", label_values))
    write_scan(tmp_path, "1", "T1w", volume, channels, SPACING, ABOUT)
    names = sorted(path.name for path in (tmp_path / "sub-1/anat").iterdir())
    assert names == [
        f"sub-1_desc-synthetic_{suffix}.{ending}"
        for suffix in ("T1w", "T2w", "dseg")
        for ending in ("json", "nii.gz")
    ]
    for suffix, expected in (("T1w", volume[0]), ("T2w", volume[1])):
        image: Any = nib.load(tmp_path / scan_path("1", suffix))
        assert image.get_data_dtype() == np.float32
        assert np.array_equal(np.asarray(image.dataobj), expected)
    labels: Any = nib.load(tmp_path / scan_path("1", "dseg"))
    assert labels.get_data_dtype() == dtype
    found = np.asarray(labels.dataobj)
    assert np.array_equal(found, np.array(label_values)[label[0].astype(int)])
    assert np.allclose(labels.affine, centred_affine((6, 7, 9), SPACING))


def test_channels_that_are_not_those_of_the_volume_are_refused(tmp_path: Path) -> None:
    two = np.zeros((2, 4, 4, 4), dtype=np.float32)
    with pytest.raises(ValueError, match="1 channels are named and 2 are given"):
        write_scan(tmp_path, "0", "T1w", two, IMAGE, SPACING, {})
    with pytest.raises(ValueError, match="two channels would be one file"):
        write_scan(tmp_path, "0", "T1w", two, (*IMAGE, Channel("T1w")), SPACING, {})
    label = (*IMAGE, Channel("dseg", (0, 1)))
    for value in (0.5, 2.0, -1.0):
        with pytest.raises(ValueError, match="whole numbers from 0 to 1"):
            write_scan(tmp_path, "0", "T1w", np.full_like(two, value), label, SPACING, {})
