"""A scan through the VQ-VAE and back onto its own grid."""

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from click.testing import CliRunner

from tests.conftest import tiny_values
from vqmri.cli import main
from vqmri.codes import CodeStore, code_tensors
from vqmri.errors import InputError, ParamsError
from vqmri.evaluation.reconstruction import psnr_in_view
from vqmri.layout import Layout
from vqmri.params import Params
from vqmri.scans import phantom
from vqmri.scans.store import VolumeStore
from vqmri.stages.ingest import ingest
from vqmri.stages.reconstruct import reconstruct
from vqmri.stages.train_vqvae import train_vqvae
from vqmri.training.generator import Generator


def raw_phantom(number: int) -> tuple[np.ndarray, np.ndarray]:
    """Voxels and affine of a scan; the project `finished` was made from the first twenty."""
    volume, _ = phantom.read(phantom.find(count=21, seed=0)[number], seed=0, spacing=10.0)
    assert volume.affine is not None
    return volume.data[0], volume.affine


def write(path: Path, data: np.ndarray, affine: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.Nifti1Image(data, affine).to_filename(path)
    return path


def load(path: Path) -> tuple[np.ndarray, np.ndarray]:
    image: Any = nib.load(path)
    return np.asarray(image.dataobj), image.affine


def test_it_is_what_the_stored_codes_decode_to(
    finished: Layout, tiny: Params, tmp_path: Path
) -> None:
    data, affine = raw_phantom(5)
    scan = write(tmp_path / "sub-05_T1w.nii.gz", data, affine)
    found = reconstruct(tiny, finished, scan, out=tmp_path / "out.nii.gz")
    generator = Generator(finished.output("vqvae"), finished.output("prior"))
    codes = CodeStore(finished.output("codes")).read([5])
    decoded = generator.decode(code_tensors(codes, generator.vqvae.num_embeddings))
    store = VolumeStore(finished.output("volumes"))
    record = store.records[5]
    expected = psnr_in_view(np.clip(decoded, 0, 1), store.read([record]), [record.box])[0]
    assert found["psnr_db"] == pytest.approx(expected, abs=1e-3)
    bits = sum(np.log2(k) * np.prod([-(-b // 4) - a // 4 for a, b in record.box]) for k in (16,))
    voxels = np.prod([b - a for a, b in record.box])
    assert found["bits_per_voxel"] == pytest.approx(bits / voxels)
    back, grid = load(tmp_path / "out.nii.gz")
    assert back.shape == data.shape
    assert np.allclose(grid, affine)
    assert data.min() <= back.min() < back.max() <= data.max()
    # closer to this scan than to another one's, in the scan's own units
    other, _ = raw_phantom(9)
    if other.shape == data.shape:
        assert np.abs(back - data).mean() < np.abs(back - other).mean()
    about = json.loads((tmp_path / "out.json").read_text())
    assert about["Scan"] == scan.name
    assert [step["step"] for step in about["Steps"]] == ["orient", "resample", "scale", "crop"]


def test_a_turned_scan_comes_back_as_it_lies(
    finished: Layout, tiny: Params, tmp_path: Path
) -> None:
    data, affine = raw_phantom(5)
    straight = write(tmp_path / "a.nii.gz", data, affine)
    orientation = np.array([[2, -1], [0, 1], [1, -1]])
    turned = nib.orientations.apply_orientation(data, orientation)
    change = nib.orientations.inv_ornt_aff(orientation, data.shape)
    other = write(tmp_path / "b.nii.gz", np.ascontiguousarray(turned), affine @ change)
    first = reconstruct(tiny, finished, straight, out=tmp_path / "c.nii.gz")
    second = reconstruct(tiny, finished, other, out=tmp_path / "d.nii.gz")
    assert second["psnr_db"] == pytest.approx(first["psnr_db"], abs=1e-4)
    one, _ = load(tmp_path / "c.nii.gz")
    two, _ = load(tmp_path / "d.nii.gz")
    expected = nib.orientations.apply_orientation(one, orientation)
    assert np.allclose(two, expected, atol=1e-3 * one.max())


def test_at_the_command_line(
    finished: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scan = write(tmp_path / "sub-05_T1w.nii.gz", *raw_phantom(5))
    monkeypatch.chdir(finished.root)
    done = CliRunner().invoke(
        main, ["reconstruct", str(scan), "--out", str(tmp_path / "x.nii.gz"), "--json"]
    )
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["reconstruction"] == str(tmp_path / "x.nii.gz")
    again = CliRunner().invoke(
        main, ["reconstruct", str(scan), "--out", str(tmp_path / "x.nii.gz")]
    )
    assert again.exit_code == 2
    assert "exists" in again.output


def test_what_ingest_refuses_is_an_error(finished: Layout, tiny: Params, tmp_path: Path) -> None:
    scan = write(tmp_path / "flat.nii.gz", np.ones((8, 8, 8), np.float32), np.eye(4))
    with pytest.raises(InputError, match="constant"):
        reconstruct(tiny, finished, scan, out=tmp_path / "x.nii.gz")
    assert not (tmp_path / "x.nii.gz").exists()


def test_a_project_of_masked_scans_asks_for_a_mask(tmp_path: Path) -> None:
    for number in range(6):
        data, affine = raw_phantom(number)
        write(tmp_path / f"raw/{number}_SS.nii.gz", data, affine)
        brain = (data > np.percentile(data, 60)).astype(np.uint8)
        write(tmp_path / f"raw/{number}_mask.nii.gz", brain, affine)
    values = tiny_values()
    source = {"kind": "nifti", "images": "*_SS.nii.gz", "masks": "*_mask.nii.gz"}
    values["ingest"] |= {"raw": "raw", "source": source, "skull_strip": True}
    params, data_of = Params.model_validate(values), Layout(tmp_path)
    ingest(params, data_of)
    train_vqvae(params, data_of)
    scan, mask = tmp_path / "raw/0_SS.nii.gz", tmp_path / "raw/0_mask.nii.gz"
    with pytest.raises(ParamsError, match="--mask is missing"):
        reconstruct(params, data_of, scan, out=tmp_path / "x.nii.gz")
    found = reconstruct(params, data_of, scan, mask=mask, out=tmp_path / "x.nii.gz")
    assert found["psnr_db"] > 5
    steps = json.loads((tmp_path / "x.json").read_text())["Steps"]
    assert steps == VolumeStore(data_of.output("volumes")).records[0].steps
    assert steps[0]["step"] == "mask"
    assert "strip" in [step["step"] for step in steps]
