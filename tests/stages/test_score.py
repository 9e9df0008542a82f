"""A scan's bits, from the file to the map."""

import gzip
import json
import math
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
import yaml
from click.testing import CliRunner

from tests.conftest import tiny_values
from vqmri.build.ingest import normaliser
from vqmri.cli import main
from vqmri.codes import CodeStore, code_tensors
from vqmri.errors import InputError, IntegrityError, ParamsError
from vqmri.layout import Layout
from vqmri.params import Params
from vqmri.prior import Prior
from vqmri.scans import nifti, phantom
from vqmri.scans.store import VolumeStore
from vqmri.scans.volume import Record
from vqmri.stages.encode import encode
from vqmri.stages.ingest import ingest
from vqmri.stages.score import score
from vqmri.stages.train_prior import train_prior
from vqmri.stages.train_vqvae import train_vqvae
from vqmri.training.generator import Generator
from vqmri.training.model_folder import load_model

FACTOR = 4


def write(path: Path, data: np.ndarray, affine: np.ndarray | None) -> Path:
    assert affine is not None
    nib.Nifti1Image(data, affine).to_filename(path)
    return path


def raw_phantom(number: int) -> tuple[np.ndarray, np.ndarray | None]:
    """Voxels and affine of a scan; the project `finished` was made from the first twenty."""
    candidate = phantom.find(count=21, seed=0)[number]
    volume, _ = phantom.read(candidate, seed=0, spacing=10.0)
    return volume.data[0], volume.affine


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    return write(tmp_path / "sub-05_T1w.nii.gz", *raw_phantom(5))


def load(path: Path) -> tuple[np.ndarray, np.ndarray]:
    image: Any = nib.load(path)
    assert image.get_data_dtype() == np.float32
    return np.asarray(image.dataobj), image.affine


def test_bits_are_those_of_the_stored_codes_of_the_same_scan(
    finished: Layout, tiny: Params, scan: Path, tmp_path: Path
) -> None:
    found = score(tiny, finished, scan, out=tmp_path / "map.nii.gz")
    codes = CodeStore(finished.output("codes"))
    record = Record(**codes.attributes["records"][5])
    assert record.source == "phantom00005"
    prior, _ = load_model(finished.output("prior"), Prior)
    with torch.no_grad():
        nats = prior(code_tensors(codes.read([5]), codes.num_embeddings))[0][0].double()
    view = tuple(slice(a // FACTOR, -(-b // FACTOR)) for a, b in record.box)
    total = float(nats[view].sum()) / math.log(2)
    assert found["total_bits"] == pytest.approx(total, rel=1e-5)
    assert found["bits_of_maps"] == {"level_0": found["total_bits"]}
    assert found["density_bits_of_maps"] == {}
    assert found["bits_per_code"] == pytest.approx(total / nats[view].numel(), rel=1e-5)
    voxels = math.prod(b - a for a, b in record.box)
    assert found["bits_per_voxel"] == pytest.approx(total / voxels, rel=1e-5)


def test_the_map_lies_over_the_normalised_volume_and_sums_to_the_total(
    finished: Layout, tiny: Params, scan: Path, tmp_path: Path
) -> None:
    found = score(tiny, finished, scan, out=tmp_path / "map.nii.gz")
    voxels, affine = load(Path(found["map"]))
    record = VolumeStore(finished.output("volumes")).records[5]
    np.testing.assert_allclose(affine, record.normalised_affine, atol=1e-4)
    assert voxels.shape == tiny.ingest.shape
    assert voxels.sum(dtype=np.float64) == pytest.approx(found["total_bits"], rel=1e-6)


def test_what_the_scan_does_not_cover_has_no_bits(
    finished: Layout, tiny: Params, tmp_path: Path
) -> None:
    data, affine = raw_phantom(5)
    short = write(tmp_path / "short.nii", data[:, 5:15], affine)
    found = score(tiny, finished, short, out=tmp_path / "map.nii.gz")
    voxels, _ = load(tmp_path / "map.nii.gz")
    box = normaliser(tiny.ingest)(nifti.read(short)[0]).box
    assert box[1] == (7, 17)
    view = tuple(slice(*ends) for ends in box)
    assert (voxels[view] > 0).all()
    assert voxels[view].sum(dtype=np.float64) == pytest.approx(found["total_bits"], rel=1e-6)
    voxels[view] = 0
    assert not voxels.any()


def test_the_sidecar_says_of_what_the_map_is(
    finished: Layout, tiny: Params, scan: Path, tmp_path: Path
) -> None:
    asked = {"age": 65, "sex": "F"}
    found = score(tiny, finished, scan, covariates=asked, out=tmp_path / "map.nii.gz")
    sidecar = json.loads((tmp_path / "map.json").read_text())
    assert sidecar["TotalBits"] == found["total_bits"]
    assert sidecar["BitsPerCode"] == found["bits_per_code"]
    assert sidecar["BitsPerVoxel"] == found["bits_per_voxel"]
    assert sidecar["BitsOfMaps"] == found["bits_of_maps"]
    assert sidecar["Covariates"] == asked
    assert sidecar["Scan"] == scan.name
    for key, name in (("VQVAEWeights", "vqvae"), ("PriorWeights", "prior")):
        about = json.loads((finished.output(name) / "model.json").read_text())["about"]
        assert sidecar[key] == about["weights"]


def test_again_gives_the_same_bytes(
    finished: Layout, tiny: Params, scan: Path, tmp_path: Path
) -> None:
    for name in ("a", "b"):
        score(tiny, finished, scan, out=tmp_path / f"{name}.nii.gz")
    for suffix in (".nii.gz", ".json"):
        one, two = (tmp_path / f"{name}{suffix}" for name in ("a", "b"))
        assert one.read_bytes() == two.read_bytes()


def test_covariates_change_the_bits(
    finished: Layout, tiny: Params, scan: Path, tmp_path: Path
) -> None:
    totals = [
        score(tiny, finished, scan, covariates=asked, extrapolate=True, out=tmp_path / name)[
            "total_bits"
        ]
        for asked, name in (
            (None, "a.nii.gz"),
            ({"age": 20}, "b.nii.gz"),
            ({"age": 99}, "c.nii.gz"),
        )
    ]
    assert len(set(totals)) == 3


@pytest.mark.parametrize(
    ("covariates", "expected"),
    [
        ({"weight": 70}, "weight"),
        ({"age": 120}, "--extrapolate"),
        ({"sex": ["F", "M"]}, "trained on F, M"),
    ],
)
def test_what_the_prior_does_not_know_is_refused_and_nothing_is_written(
    finished: Layout, tiny: Params, scan: Path, covariates: dict[str, Any], expected: str
) -> None:
    with pytest.raises(ParamsError, match=expected):
        score(tiny, finished, scan, covariates=covariates, out=scan.parent / "map.nii.gz")
    assert list(scan.parent.iterdir()) == [scan]


def test_a_scan_that_ingest_would_refuse_is_refused_with_its_code(
    finished: Layout, tiny: Params, scan: Path, tmp_path: Path
) -> None:
    data, affine = raw_phantom(5)
    cut = tmp_path / "cut.nii.gz"
    cut.write_bytes(scan.read_bytes()[:-100])
    several = write(tmp_path / "several.nii.gz", np.stack([data, data], axis=-1), affine)
    flat = write(tmp_path / "flat.nii.gz", np.ones_like(data), affine)
    text = tmp_path / "text.nii.gz"
    text.write_bytes(gzip.compress(b"not a scan"))
    for path, code in (
        (cut, "unreadable"), (several, "not-3d"), (flat, "constant"), (text, "unreadable"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=rf"{path.name}: {code}: "):
            score(tiny, finished, path, out=tmp_path / "map.nii.gz")
    assert not (tmp_path / "map.json").exists()


@pytest.mark.parametrize("name", ["scan.dcm", "notes.md", "scan", "scan.gz"])
def test_what_is_no_image_by_its_name_is_refused_with_those_that_are(
    finished: Layout, tiny: Params, tmp_path: Path, name: str
) -> None:
    (tmp_path / name).write_bytes(bytes(500))
    with pytest.raises(InputError, match=rf"{name} is no image by its name: \.nii.* Name such"):
        score(tiny, finished, tmp_path / name, out=tmp_path / "map.nii.gz")
    with pytest.raises(InputError, match=r"absent\.nii is missing.* Name a scan"):
        score(tiny, finished, tmp_path / "absent.nii", out=tmp_path / "map.nii.gz")


def test_a_patch_of_noise_costs_more_than_what_was_there(tmp_path: Path) -> None:
    """By a model that was trained for a few seconds; min of 16 scans and 2 seeds: twice as much."""
    values = tiny_values() | {"study": None}
    values["train_vqvae"]["steps"], values["train_prior"]["steps"] = 150, 300
    params, data = Params.model_validate(values), Layout(tmp_path)
    for stage in (ingest, train_vqvae, encode, train_prior):
        stage(params, data)
    usual, affine = raw_phantom(20)  # one that was not ingested
    strange = usual.copy()
    noise = np.random.default_rng(0).random((8, 6, 8), dtype=np.float32)
    strange[:8, :6, :8] = usual.max() * noise
    bits = []
    for name, voxels in (("usual", usual), ("strange", strange)):
        scan = write(tmp_path / f"{name}.nii.gz", voxels, affine)
        found = score(params, data, scan, out=tmp_path / f"{name}_bits.nii.gz")
        bits.append(load(Path(found["map"]))[0][8:, 2:8, :8].sum())  # x the other way: RAS
    assert bits[1] > 1.5 * bits[0]


@pytest.mark.parametrize("taken", ["map.nii.gz", "map.json"])
def test_no_file_is_replaced(finished: Layout, tiny: Params, scan: Path, taken: str) -> None:
    (scan.parent / taken).write_text("years of work")
    with pytest.raises(ParamsError, match=f"{taken} exists"):
        score(tiny, finished, scan, out=scan.parent / "map.nii.gz")
    assert (scan.parent / taken).read_text() == "years of work"


@pytest.mark.parametrize(
    "out", ["map.nii", "data/raw/map.nii.gz", "data/samples/map.nii.gz", "data/.work/map.nii.gz"]
)
def test_the_map_is_a_nifti_outside_the_projects_own_folders(
    finished: Layout, tiny: Params, scan: Path, out: str
) -> None:
    with pytest.raises(ParamsError, match=r"map\.nii"):
        score(tiny, finished, scan, out=finished.root / out)
    assert not (finished.root / out).exists()


def test_models_of_other_volumes_than_params_ask_for_are_refused(
    copy_of_finished: Layout, tiny: Params, scan: Path
) -> None:
    out = scan.parent / "map.nii.gz"
    settings = tiny.ingest.model_copy(update={"percentiles": (1.0, 99.0)})
    with pytest.raises(ParamsError, match=r"ingest\.percentiles = \[1\.0, 99\.0\]"):
        score(tiny.model_copy(update={"ingest": settings}), copy_of_finished, scan, out=out)
    ingest(tiny.model_copy(update={"seed": 5}), copy_of_finished)
    with pytest.raises(IntegrityError, match="other volumes"):
        score(tiny, copy_of_finished, scan, out=out)
    assert not out.exists()


@pytest.mark.parametrize(
    ("about", "expected"),
    [
        ({"shape": [1, 28, 28]}, "pictures"),
        (
            {"channels": [{"name": "image", "label_values": []}, {"name": "T2w"}]},
            r"several channels \(image, T2w\)",
        ),
    ],
)
def test_pictures_and_several_channels_are_refused(
    finished: Layout,
    tiny: Params,
    scan: Path,
    monkeypatch: pytest.MonkeyPatch,
    about: dict[str, Any],
    expected: str,
) -> None:
    class Other(Generator):
        def __init__(self, *folders: Path) -> None:
            super().__init__(*folders)
            self.about |= about

    monkeypatch.setattr("vqmri.stages.score.Generator", Other)
    with pytest.raises(ParamsError, match=expected):
        score(tiny, finished, scan, out=scan.parent / "map.nii.gz")


def test_the_command_prints_figures_and_writes_beside_nothing_else(
    copy_of_finished: Layout, scan: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(copy_of_finished.root)
    Path("params.yaml").write_text(yaml.safe_dump(tiny_values()))
    before = {path.name for path in Path().iterdir()}
    known = ["--covariate", "sex=F", "--covariate", "age=65"]
    done = CliRunner().invoke(main, ["score", str(scan), *known, "--json"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert found["map"] == "sub-05_T1w_bits.nii.gz"
    written = {path.name for path in Path().iterdir()} - before
    assert written == {"sub-05_T1w_bits.nii.gz", "sub-05_T1w_bits.json"}
    assert load(Path(found["map"]))[0].sum() == pytest.approx(found["total_bits"], rel=1e-4)

    again = CliRunner().invoke(main, ["score", str(scan)])
    assert again.exit_code == 2
    assert "sub-05_T1w_bits.nii.gz exists" in again.output
    unknown = ["score", str(scan), "--covariate", "weight=70", "--out", "other.nii.gz"]
    assert CliRunner().invoke(main, unknown).exit_code == 2
    scan.write_bytes(scan.read_bytes()[:-100])
    damaged = CliRunner().invoke(main, ["score", str(scan), "--out", "other.nii.gz"])
    assert damaged.exit_code == 3
    assert "unreadable" in damaged.output
    assert not Path("other.nii.gz").exists()
