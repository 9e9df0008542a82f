"""Brain masks and the middle of the foreground in `normalise`."""

from typing import Any

import numpy as np
import pytest

from vqmri.scans.check import Refused
from vqmri.scans.normalise import normalise
from vqmri.scans.volume import Volume, crop, thinned

OPTIONS: dict[str, Any] = {"spacing": (1.0,) * 3, "percentiles": (1.0, 99.0)}


def ball(centre: tuple[int, int, int], radius: float, shape: tuple[int, int, int]) -> np.ndarray:
    apart = np.indices(shape) - np.reshape(centre, (3, 1, 1, 1))
    inside: np.ndarray = (apart**2).sum(0) < radius**2
    return inside


def head() -> Volume:
    """A brain off the centre, and a brighter skull about it."""
    shape = (48, 52, 44)
    random = np.random.default_rng(0)
    skull, brain = ball((18, 30, 20), 15, shape), ball((18, 30, 20), 11, shape)
    data = 20 + 10 * random.random(shape) + 3000 * skull * random.random(shape)
    data[brain] = 500 + 400 * random.random(int(brain.sum()))
    return Volume(data[None].astype(np.float32), np.eye(4), mask=brain.astype(np.float32))


def test_the_scale_is_of_the_mask_alone() -> None:
    scan = head()
    assert scan.mask is not None
    done = normalise(scan, shape=(48, 52, 44), **OPTIONS)
    brain = done.volume.data[0][scan.mask > 0]
    assert (brain == 0).mean() == pytest.approx(0.01, abs=0.002)
    assert (brain == 1).mean() == pytest.approx(0.01, abs=0.002)
    values = scan.data[0][scan.mask > 0]
    scale = next(step for step in done.steps if step["step"] == "scale")
    assert (scale["of"], scale["low"][0]) == ("mask", pytest.approx(np.percentile(values, 1)))
    without = normalise(Volume(scan.data, scan.affine), shape=(48, 52, 44), **OPTIONS)
    assert without.steps[2]["of"] == "scan"
    assert without.steps[2]["high"][0] > 2 * scale["high"][0]


def test_what_is_outside_becomes_0_when_asked() -> None:
    scan = head()
    assert scan.mask is not None
    kept = normalise(scan, shape=(48, 52, 44), **OPTIONS).volume.data[0]
    bare = normalise(scan, shape=(48, 52, 44), skull_strip=True, **OPTIONS)
    assert kept[scan.mask == 0].max() == 1
    assert bare.volume.data[0][scan.mask == 0].max() == 0
    assert np.array_equal(bare.volume.data[0][scan.mask > 0], kept[scan.mask > 0])
    assert {"step": "strip"} in bare.steps


def test_an_empty_mask_is_refused() -> None:
    scan = head()
    empty = Volume(scan.data, scan.affine, mask=np.zeros((48, 52, 44), np.float32))
    with pytest.raises(Refused, match="mask-empty"):
        normalise(empty, shape=(48, 52, 44), **OPTIONS)


@pytest.mark.parametrize("masked", [True, False])
def test_the_middle_of_the_foreground_comes_to_the_middle(masked: bool) -> None:
    scan = head()
    if not masked:
        scan = Volume(scan.data, scan.affine)
    shape = (34, 34, 34)
    done = normalise(scan, shape=shape, foreground_crop=True, **OPTIONS)
    start = done.steps[-1]["start"]
    assert np.abs(np.array(start) - (np.array([18, 30, 20]) - 17)).max() <= 1
    whole = normalise(scan, shape=(48, 52, 44), **OPTIONS).volume.data[0]
    box = tuple((a + s, b + s) for (a, b), s in zip(done.box, start, strict=True))
    assert np.array_equal(done.volume.data[0][crop(done.box)], whole[crop(box)])
    assert done.volume.affine is not None
    assert np.array_equal(done.volume.affine[:3, 3], start)
    # without it the head, which is off the centre, is cut off
    centred = normalise(scan, shape=shape, **OPTIONS)
    assert centred.steps[-1] == {"step": "crop", "start": [7, 9, 5], "about": "scan"}


def test_the_extent_of_the_foreground_is_noted_in_millimetres() -> None:
    scan = head()
    assert scan.mask is not None
    voxels = [np.flatnonzero(scan.mask.any(axis=axes)) for axes in ((1, 2), (0, 2), (0, 1))]
    for size in (1.0, 0.5):
        options = OPTIONS | {"spacing": (size,) * 3}
        done = normalise(scan, shape=(16, 16, 16), foreground_crop=True, **options)
        expected = [float(np.ptp(there)) + 1 for there in voxels]
        assert done.steps[-1]["extent"] == pytest.approx(expected, abs=2 * (1 - size))


def test_a_speck_is_no_foreground() -> None:
    scan = head()
    data = scan.data.copy()
    data[0, 47, 0, 43] = 4000
    done = normalise(Volume(data, scan.affine), shape=(34, 34, 34), foreground_crop=True, **OPTIONS)
    assert np.abs(np.array(done.steps[-1]["start"]) - np.array([1, 13, 3])).max() <= 1


def test_a_window_that_reaches_beyond_the_scan_is_padded() -> None:
    scan = head()
    done = normalise(scan, shape=(60, 40, 60), foreground_crop=True, **OPTIONS)
    assert done.box == ((12, 60), (0, 40), (10, 54))
    padding = np.ones((60, 40, 60), bool)
    padding[crop(done.box)] = False
    assert done.volume.data[0][padding].max() == 0


def test_percentiles_of_a_thinned_scan_are_those_of_all() -> None:
    data = np.random.default_rng(0).gamma(2, 50, (168, 200, 168)).astype(np.float32)
    few = thinned(data)
    assert 2**19 < few.size <= 2**20
    for percentile in (0.5, 50, 99.5):
        found = np.percentile(few, percentile)
        rank = 100 * (data < found).mean()
        assert rank == pytest.approx(percentile, abs=0.1 if percentile == 50 else 0.02)
    small = data[:100, :100, :100]
    assert thinned(small).shape == small.shape


def test_slices_acquired_in_turns_are_thinned_as_others() -> None:
    """Odd slices brighter than even ones: a step of two would see one kind alone."""
    data = np.random.default_rng(0).random((256, 256, 200)).astype(np.float32)
    for axis in range(3):
        striped = data.copy()
        striped[(slice(None),) * axis + (slice(1, None, 2),)] += 5
        assert np.percentile(thinned(striped), 75) == pytest.approx(5.5, abs=0.02)


def test_a_mask_of_a_few_voxels_is_not_empty() -> None:
    data = np.random.default_rng(0).random((1, 200, 200, 200)).astype(np.float32)
    mask = np.zeros((200, 200, 200), np.float32)
    mask[101, 101, 101:104] = 1
    scan = Volume(data, np.eye(4), mask=mask)
    done = normalise(scan, shape=(16, 16, 16), foreground_crop=True, **OPTIONS)
    low, high = np.percentile(data[0, 101, 101, 101:104], (1, 99))
    assert done.steps[2]["low"][0] == pytest.approx(low)
    assert done.steps[2]["high"][0] == pytest.approx(high)
