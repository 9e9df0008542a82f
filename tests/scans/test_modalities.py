from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from vqmri.scans import modalities
from vqmri.scans.check import Refused
from vqmri.scans.modalities import on_grid_of
from vqmri.scans.volume import Candidate, Volume

SHAPE = (12, 14, 10)
AFFINE = np.diag([-1.0, 1.5, 2.0, 1.0])
AFFINE[:3, 3] = [7, -3, 20]


def ramp(shape: tuple[int, ...], affine: np.ndarray) -> Volume:
    """Intensity is a linear function of the place in the world, which linear resampling keeps."""
    index = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"))
    world = np.einsum("ij,jxyz->ixyz", affine[:3, :3], index) + affine[:3, 3][:, None, None, None]
    data = 1000 + 2 * world[0] - 3 * world[1] + 5 * world[2]
    return Volume(data[None].astype(np.float32), affine)


def save(path: Path, data: np.ndarray, affine: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image: Any = nib.Nifti1Image(data, affine)
    nib.save(image, path)


def turned(degrees: float) -> np.ndarray:
    angle = np.radians(degrees)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return turn


def test_the_same_grid_is_left_alone() -> None:
    scan, other = ramp(SHAPE, AFFINE), ramp(SHAPE, AFFINE + 1e-5)
    assert on_grid_of(other, scan) is other.data


@pytest.mark.parametrize(
    ("shape", "change"),
    [
        ((40, 44, 36), np.diag([0.5, 0.5, 0.5, 1.0])),
        ((12, 14, 10), np.diag([-1.0, 1, 1, 1])),  # flipped, about a voxel of its own
        ((30, 30, 30), turned(20) @ np.diag([1.0, 0.7, 0.6, 1.0])),
    ],
)
def test_another_grid_is_resampled_to_the_place_in_the_world(
    shape: tuple[int, ...], change: np.ndarray
) -> None:
    scan = ramp(SHAPE, AFFINE)
    affine = AFFINE @ change
    # the same centre
    assert scan.affine is not None
    centre = scan.affine[:3, :3] @ ((np.array(SHAPE) - 1) / 2) + scan.affine[:3, 3]
    affine[:3, 3] = centre - affine[:3, :3] @ ((np.array(shape) - 1) / 2)
    found = on_grid_of(ramp(shape, affine), scan)
    assert found.shape == scan.data.shape
    assert found.dtype == np.float32
    inner = (0, slice(3, -3), slice(3, -3), slice(3, -3))  # the border goes on beyond the field
    assert np.allclose(found[inner], scan.data[inner], atol=0.01)


def test_what_shows_another_place_is_refused() -> None:
    away = AFFINE.copy()
    away[0, 3] += 500
    with pytest.raises(Refused) as caught:
        on_grid_of(ramp(SHAPE, away), ramp(SHAPE, AFFINE), "T2w.nii")
    assert caught.value.code == "modality-mismatch"
    assert "T2w.nii" in caught.value.reason


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    for name in ("t1.nii.gz", "t2.nii.gz"):
        save(tmp_path / name, random.random(SHAPE).astype(np.float32), AFFINE)
    save(tmp_path / "dseg.nii.gz", random.choice([0, 7, 300], SHAPE).astype(np.int16), AFFINE)
    return tmp_path


def candidate(*others: str, label: str | None = None) -> Candidate:
    return Candidate("t1.nii.gz", "one", {}, label=label, modalities=others)


def test_a_scan_with_all_that_belongs_to_it(raw: Path) -> None:
    scan, _ = modalities.read(
        raw, candidate("t2.nii.gz", label="dseg.nii.gz"), names=["T2w"], label_values=[0, 300, 7]
    )
    for channel, name in enumerate(("t1", "t2")):
        image: Any = nib.load(raw / f"{name}.nii.gz")
        assert np.array_equal(scan.data[channel], np.asarray(image.dataobj))
    assert scan.label is not None
    labels: Any = nib.load(raw / "dseg.nii.gz")
    values = np.array([0, 300, 7])[scan.label.astype(int)]
    assert np.array_equal(values, np.asarray(labels.dataobj))
    assert np.array_equal(scan.channels[-1], scan.label)


def test_without_label_values_the_label_map_is_only_looked_at(raw: Path) -> None:
    scan, _ = modalities.read(raw, candidate(label="dseg.nii.gz"), names=[], label_values=None)
    assert scan.label is None
    with pytest.raises(Refused, match="label-missing"):
        modalities.read(raw, candidate(label=""), names=[], label_values=None)


@pytest.mark.parametrize(
    ("found", "code"),
    [
        (candidate(""), "modality-missing: no file of T2w"),
        (candidate("link.nii.gz"), "unreadable: T2w: FileNotFound"),
        (candidate("junk.nii.gz"), "unreadable: T2w"),
        (candidate("flat.nii.gz"), "constant: T2w"),
        (candidate("t2.nii.gz", label=""), "label-missing"),
        (candidate("t2.nii.gz", label="junk.nii.gz"), "unreadable: label map"),
        (candidate("t2.nii.gz", label="shifted.nii.gz"), "label-mismatch"),
        (candidate("t2.nii.gz", label="other.nii.gz"), r"label-values: \[5\.0\] not among"),
        (candidate("t2.nii.gz", label="half.nii.gz"), "label-values"),
        (candidate("t2.nii.gz", label="nan.nii.gz"), "label-values"),
    ],
)
def test_what_is_absent_damaged_or_strange_is_refused(
    raw: Path, found: Candidate, code: str
) -> None:
    zeros = np.zeros(SHAPE, dtype=np.float32)
    (raw / "junk.nii.gz").write_bytes(b"junk")
    (raw / "link.nii.gz").symlink_to("nowhere.nii.gz")
    save(raw / "flat.nii.gz", zeros + 1, AFFINE)
    save(raw / "shifted.nii.gz", zeros, AFFINE + np.eye(4, k=3))
    for name, value in (("other", 5), ("half", 0.5), ("nan", np.nan)):
        data = zeros.copy()
        data[3, 3, 3] = value
        save(raw / f"{name}.nii.gz", data, AFFINE)
    with pytest.raises(Refused, match=code):
        modalities.read(raw, found, names=["T2w"], label_values=[0, 7, 300])


def test_a_label_map_of_background_alone_is_one(raw: Path) -> None:
    save(raw / "none.nii.gz", np.zeros(SHAPE, dtype=np.uint8), AFFINE)
    scan, _ = modalities.read(raw, candidate(label="none.nii.gz"), names=[], label_values=[0, 1])
    assert scan.label is not None
    assert scan.label.max() == 0


def test_a_label_map_whose_checksum_is_wrong_is_refused(raw: Path) -> None:
    path = raw / "dseg.nii.gz"
    data = bytearray(path.read_bytes())
    data[-6] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(Refused, match="unreadable: label map"):
        modalities.read(raw, candidate(label="dseg.nii.gz"), names=[], label_values=[0, 7, 300])
