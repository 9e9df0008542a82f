import hashlib
from dataclasses import replace

import nibabel as nib
import numpy as np
import pytest

from vqmri.scans import phantom
from vqmri.scans.volume import Candidate, Volume

SPACING = 8.0


def aged(candidate: Candidate, age: float) -> Candidate:
    """The same subject, noise and all, at another age."""
    return replace(candidate, covariates={**candidate.covariates, "age": age})


def world(volume: Volume) -> np.ndarray:
    """World coordinates of every voxel in mm, (3, x, y, z)."""
    assert volume.affine is not None
    index = np.indices(volume.data.shape[1:])
    turned = np.einsum("ij,jxyz->ixyz", volume.affine[:3, :3], index)
    return turned + volume.affine[:3, 3, None, None, None]


def ventricle_share(volume: Volume) -> float:
    """Share of dark voxels among those near the centre, where all else is white or grey matter."""
    x, y, z = world(volume)
    near = (np.abs(x) < 24) & (np.abs(y) < 32) & (np.abs(z - 6) < 18)
    data = volume.data[0]
    return float((data[near] < 0.5 * np.median(data[near])).mean())


def test_find_is_deterministic_and_covers_the_covariates() -> None:
    found = phantom.find(count=40, seed=3)
    assert found == phantom.find(count=40, seed=3)
    assert found != phantom.find(count=40, seed=4)
    assert len({c.subject for c in found}) == 40
    ages = [c.covariates["age"] for c in found]
    assert phantom.AGES[0] <= min(ages) < 40
    assert 70 < max(ages) <= phantom.AGES[1]
    assert {c.covariates["sex"] for c in found} == {"F", "M"}


def test_more_phantoms_leave_the_first_ones_as_they_are() -> None:
    assert phantom.find(count=9, seed=0)[:4] == phantom.find(count=4, seed=0)


def test_a_phantom_is_deterministic() -> None:
    candidate = phantom.find(count=2, seed=0)[1]
    first, sha256 = phantom.read(candidate, seed=0, spacing=SPACING)
    again, same = phantom.read(candidate, seed=0, spacing=SPACING)
    assert np.array_equal(first.data, again.data)
    assert sha256 == same == hashlib.sha256(first.data.tobytes()).hexdigest()


def test_subjects_and_seeds_differ() -> None:
    candidates = phantom.find(count=3, seed=0)
    scans = [phantom.read(c, seed=0, spacing=SPACING)[0] for c in candidates]
    scans.append(phantom.read(candidates[0], seed=1, spacing=SPACING)[0])
    # Scaled to one brightness, so that the gain of the scanner alone does not count.
    heads = [scan.data / np.percentile(scan.data, 99) for scan in scans]
    for i, one in enumerate(heads):
        for other in heads[:i]:
            assert np.abs(one - other).mean() > 0.02


@pytest.mark.parametrize("spacing", [7.0, 10.0])
def test_the_grid_is_las_and_centred(spacing: float) -> None:
    volume, _ = phantom.read(phantom.find(count=1, seed=0)[0], seed=0, spacing=spacing)
    assert nib.aff2axcodes(volume.affine) == ("L", "A", "S")
    assert volume.spacing == pytest.approx((spacing,) * 3)
    assert world(volume).reshape(3, -1).mean(axis=1) == pytest.approx([0, 0, 0], abs=1e-6)
    assert volume.data.dtype == np.float32
    # The head ends within the grid: what lies on its faces is noise.
    head = np.percentile(volume.data, 95)
    for axis in (1, 2, 3):
        for face in (0, -1):
            assert np.take(volume.data, face, axis=axis).mean() < 0.25 * head


def test_ventricles_grow_with_age() -> None:
    shares = {}
    for age in (25.0, 85.0):
        scans = [
            phantom.read(aged(candidate, age), seed=0, spacing=SPACING)[0]
            for candidate in phantom.find(count=6, seed=0)
        ]
        shares[age] = [ventricle_share(scan) for scan in scans]
    assert np.mean(shares[85.0]) > 1.5 * np.mean(shares[25.0])
    assert np.mean(shares[25.0]) > 0.01
    assert all(old > young for young, old in zip(shares[25.0], shares[85.0], strict=True))
    assert phantom.ventricle_radius(25.0) < phantom.ventricle_radius(85.0)
