"""The way to a normalised volume and back, for scans that lie in any way."""

from typing import Any

import nibabel as nib
import numpy as np
import pytest
from nibabel.affines import from_matvec
from nibabel.eulerangles import euler2mat
from scipy import ndimage

from tests.scans.test_normalise import ORIENTATIONS
from vqmri.scans.normalise import normalise
from vqmri.scans.restore import restore
from vqmri.scans.volume import Volume

SPOTS = np.array([[-21.0, 14, 9], [17, 22, -6], [4, -25, 12], [9, 3, 25], [-12, -9, -14]])
"""Centres in mm that no rotation or reflection takes into each other; the first is on the left."""

WIDTH = 3.0  # mm, standard deviation of a spot
OPTIONS: dict[str, Any] = {"shape": (72, 80, 72), "percentiles": (0.0, 100.0)}


def phantom(affine: np.ndarray, shape: tuple[int, int, int]) -> Volume:
    """Smooth spots of different brightness at SPOTS, wherever the voxels lie."""
    grid = np.moveaxis(np.indices(shape), 0, -1) @ affine[:3, :3].T + affine[:3, 3]
    data = np.zeros(shape)
    for number, spot in enumerate(SPOTS):
        data += (100 + 40 * number) * np.exp(-((grid - spot) ** 2).sum(-1) / (2 * WIDTH**2))
    return Volume(data[None].astype(np.float32) + 20, affine)


def centred(matrix: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray:
    """The affine whose middle voxel lies at the origin."""
    return from_matvec(matrix, -matrix @ ((np.array(shape) - 1) / 2))


def found(volume: Volume, floor: float) -> np.ndarray:
    """The centre of mass of each spot's surroundings in mm, (spot, 3)."""
    assert volume.affine is not None
    data = volume.data[0].astype(np.float64) - floor
    centres = []
    for spot in SPOTS:
        voxel = np.linalg.solve(volume.affine, [*spot, 1])[:3]
        distance = np.indices(data.shape).reshape(3, -1) - voxel[:, None]
        near = np.linalg.norm(volume.affine[:3, :3] @ distance, axis=0) < 3 * WIDTH
        mass = np.where(near.reshape(data.shape), data, 0)
        centre = ndimage.center_of_mass(mass)
        centres.append((volume.affine @ [*centre, 1])[:3])
    return np.array(centres)


def turned(orientation: np.ndarray) -> Volume:
    shape = (64, 72, 68)
    axes = [int(axis) for axis, _ in orientation]
    matrix = np.zeros((3, 3))
    for row, (axis, sign) in enumerate(orientation):
        matrix[int(axis), row] = sign * 1.1
    sizes = tuple(shape[axis] for axis in axes)
    assert len(sizes) == 3
    return phantom(centred(matrix, sizes), sizes)


@pytest.mark.parametrize("orientation", ORIENTATIONS, ids=lambda o: "".join(map(str, o.ravel())))
@pytest.mark.parametrize("spacing", [1.1, 1.5])
def test_every_orientation_there_and_back(orientation: np.ndarray, spacing: float) -> None:
    scan = turned(orientation)
    done = normalise(scan, spacing=(spacing,) * 3, **OPTIONS)
    assert done.volume.affine is not None
    assert nib.aff2axcodes(done.volume.affine) == ("R", "A", "S")
    there = found(done.volume, 0.0)
    assert np.abs(there - SPOTS).max() < spacing / 2
    left = np.linalg.solve(done.volume.affine, [*there[0], 1])[0]
    assert left < 36  # the first axis goes from left to right, and the first spot is on the left
    assert scan.affine is not None
    back = restore(done.volume, scan.affine, scan.data.shape[1:], done.steps)
    assert back.data.shape == scan.data.shape
    assert np.abs(found(back, 20.0) - found(scan, 20.0)).max() < 0.1 * 1.1
    if spacing == 1.1:  # the grid is the same but for its axes, so that every voxel comes back
        assert np.abs(back.data - scan.data).max() < 1e-3 * scan.data.max()


@pytest.mark.parametrize("angles", [(0.3, 0.0, 0.0), (0.1, -0.4, 0.2), (0.7, 0.3, -0.5)])
@pytest.mark.parametrize("sizes", [(1.0, 1.0, 1.0), (0.8, 1.0, 1.6)])
def test_an_oblique_scan_there_and_back(
    angles: tuple[float, float, float], sizes: tuple[float, float, float]
) -> None:
    shape = (90, 88, 56) if sizes[2] > 1 else (80, 88, 84)
    matrix = euler2mat(*angles) @ np.diag([-sizes[0], sizes[1], sizes[2]])
    scan = phantom(centred(matrix, shape), shape)
    done = normalise(scan, spacing=(1.2, 1.2, 1.2), **OPTIONS)
    assert np.linalg.norm(found(done.volume, 0.0) - SPOTS, axis=1).max() < 0.6
    assert scan.affine is not None
    back = restore(done.volume, scan.affine, shape, done.steps)
    apart = np.linalg.norm(found(back, 20.0) - found(scan, 20.0), axis=1)
    assert apart.max() < 0.1 * min(sizes)


def test_a_faulty_way_back_is_seen() -> None:
    """Control: half a voxel of error is more than the tests above allow."""
    scan = turned(ORIENTATIONS[5])
    done = normalise(scan, spacing=(1.5,) * 3, **OPTIONS)
    assert scan.affine is not None
    wrong = scan.affine.copy()
    wrong[:3, 3] += 0.5
    back = restore(done.volume, wrong, scan.data.shape[1:], done.steps)
    there = Volume(back.data, scan.affine)
    assert np.abs(found(there, 20.0) - found(scan, 20.0)).max() > 0.1 * 1.1


def test_what_the_window_cut_off_is_the_darkest() -> None:
    shape = (60, 60, 60)
    scan = phantom(centred(np.eye(3), shape), shape)
    done = normalise(scan, spacing=(1,) * 3, shape=(40, 60, 60), percentiles=(0.0, 100.0))
    assert scan.affine is not None
    back = restore(done.volume, scan.affine, shape, done.steps).data[0]
    low = done.steps[2]["low"][0]
    assert np.allclose(back[:10], low)
    assert np.allclose(back[50:], low)
    assert np.allclose(back[10:50], scan.data[0, 10:50], atol=0.05)


def test_channels_have_their_own_intensities_and_a_label_map_its_values() -> None:
    shape = (60, 64, 60)
    one = phantom(centred(np.diag([-1.0, 1, 1]), shape), shape)
    assert one.affine is not None
    data = np.concatenate([one.data, 7 - 3 * one.data])
    label = (one.data[0] > 70).astype(np.float32) + (one.data[0] > 120)
    scan = Volume(data, one.affine, label)
    done = normalise(scan, spacing=(1.0,) * 3, shape=(64, 64, 64), percentiles=(0.0, 100.0))
    back = restore(done.volume, one.affine, shape, done.steps)
    assert np.abs(back.data - data).max() < 1e-3 * np.abs(data).max()
    assert back.label is not None
    assert np.array_equal(back.label, label)


def test_a_tilted_gantry_is_set_right() -> None:
    """A sheared scan is resampled though its voxels have the wanted size along each axis."""
    shape = (80, 88, 84)
    tilt = np.array([[1.0, 0, 0], [0, 1, np.sin(0.35)], [0, 0, np.cos(0.35)]])
    scan = phantom(centred(tilt, shape), shape)
    done = normalise(scan, spacing=(1.0, 1.0, 1.0), shape=(80, 90, 80), percentiles=(0.0, 100.0))
    assert done.volume.affine is not None
    axes = done.volume.affine[:3, :3]
    assert np.allclose(axes.T @ axes, np.eye(3), atol=1e-3)
    assert np.abs(found(done.volume, 0.0) - SPOTS).max() < 0.5
    assert scan.affine is not None
    back = restore(done.volume, scan.affine, shape, done.steps)
    assert np.linalg.norm(found(back, 20.0) - found(scan, 20.0), axis=1).max() < 0.1
