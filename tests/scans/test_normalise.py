from itertools import permutations, product
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from vqmri.scans.check import Refused, check_header
from vqmri.scans.normalise import normalise as whole
from vqmri.scans.volume import Volume, crop
from vqmri.shapes import Box

SHAPE = (7, 8, 9)
LANDMARKS = {(1, 2, 6): 100.0, (5, 2, 3): 200.0, (2, 6, 7): 300.0}
"""Voxels of the RAS volume that no rotation or reflection takes into each other."""

# The direction of each axis of a scan: 6 permutations times 8 reflections.
ORIENTATIONS = [
    np.array([[axis, sign] for axis, sign in zip(axes, signs, strict=True)])
    for axes, signs in product(permutations(range(3)), product((1, -1), repeat=3))
]


def normalise(scan: Volume, **options: Any) -> tuple[Volume, Box]:
    """The volume and its field of view."""
    done = whole(scan, **options)
    return done.volume, done.box


def scan_of(data: np.ndarray, affine: np.ndarray) -> Volume:
    return Volume(data[None].astype(np.float32), affine.astype(np.float64))


def affine_of(spacing: tuple[float, float, float]) -> np.ndarray:
    affine = np.diag([*spacing, 1.0])
    affine[:3, 3] = [-11, 5, 23]
    return affine


def landmark_scan(spacing: float) -> Volume:
    data = np.zeros(SHAPE)
    for voxel, value in LANDMARKS.items():
        data[voxel] = value
    return scan_of(data, affine_of((spacing,) * 3))


def turned(volume: Volume, orientation: np.ndarray) -> Volume:
    """The same scan with its axes permuted and flipped."""
    data = nib.orientations.apply_orientation(volume.data[0], orientation)
    change = nib.orientations.inv_ornt_aff(orientation, volume.data.shape[1:])
    return scan_of(np.ascontiguousarray(data), volume.affine @ change)


def world(volume: Volume, voxel: np.ndarray) -> np.ndarray:
    assert volume.affine is not None
    return volume.affine[:3, :3] @ voxel + volume.affine[:3, 3]


def centre_of_mass(volume: Volume) -> np.ndarray:
    """In mm, of the intensities."""
    data = volume.data[0].astype(np.float64)
    mean = np.array([(grid * data).sum() for grid in np.indices(data.shape)]) / data.sum()
    return world(volume, mean)


def blob(affine: np.ndarray) -> Volume:
    """A smooth spot, off the centre of its volume."""
    x, y, z = np.indices((16, 20, 18))
    square = (x - 6) ** 2 + (y - 12) ** 2 + (z - 8) ** 2
    return scan_of(1000 * np.exp(-square / 8), affine)


@pytest.mark.parametrize("orientation", ORIENTATIONS, ids=lambda o: "".join(map(str, o.ravel())))
def test_landmarks_of_any_orientation_keep_their_place(orientation: np.ndarray) -> None:
    spacing = 2.0
    upright = landmark_scan(spacing)
    scan = turned(upright, orientation)
    volume, box = normalise(
        scan, spacing=(spacing,) * 3, shape=(10, 11, 12), percentiles=(0.0, 100.0)
    )
    assert nib.aff2axcodes(volume.affine) == ("R", "A", "S")
    for voxel, value in LANDMARKS.items():
        found = np.argwhere(np.isclose(volume.data[0], value / 300, atol=1e-4))
        assert len(found) == 1
        distance = np.linalg.norm(world(volume, found[0]) - world(upright, np.array(voxel)))
        assert distance < spacing / 2
    assert np.allclose(volume.data[0][crop(box)], upright.data[0] / 300, atol=1e-4)


def test_the_orientations_are_all_48() -> None:
    scans = [turned(landmark_scan(2.0), orientation) for orientation in ORIENTATIONS]
    assert len({nib.aff2axcodes(scan.affine) for scan in scans}) == 48
    # The landmarks themselves lie where they lay, so that the test above tests the library.
    for scan in scans:
        brightest = np.argwhere(scan.data[0] == 300)[0]
        assert np.allclose(world(scan, brightest), world(landmark_scan(2.0), np.array([2, 6, 7])))


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.0, 1.5, 2.5), (0.7, 1.0, 1.3)])
@pytest.mark.parametrize("source", [(1.0, 1.0, 1.0), (0.8, 1.2, 1.5)])
def test_resampling_keeps_the_place_and_gives_the_spacing(
    spacing: tuple[float, float, float], source: tuple[float, float, float]
) -> None:
    scan = blob(affine_of(source) @ np.diag([-1.0, 1, -1, 1]))
    volume, _ = normalise(scan, spacing=spacing, shape=(40, 40, 40), percentiles=(0.0, 100.0))
    assert volume.spacing == pytest.approx(spacing)
    assert volume.data.shape == (1, 40, 40, 40)
    assert np.linalg.norm(centre_of_mass(volume) - centre_of_mass(scan)) < min(spacing) / 2


def test_an_oblique_scan_keeps_its_place() -> None:
    angle = np.radians(20)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    scan = blob(turn @ affine_of((1.0, 1.0, 1.0)) @ np.diag([-1.0, 1, 1, 1]))
    volume, _ = normalise(
        scan, spacing=(1.5, 1.5, 1.5), shape=(32, 32, 32), percentiles=(0.0, 100.0)
    )
    assert volume.spacing == pytest.approx((1.5, 1.5, 1.5))
    assert np.linalg.norm(centre_of_mass(volume) - centre_of_mass(scan)) < 0.75


@pytest.mark.parametrize(
    "shape",
    [
        (7, 8, 9),  # as it is
        (10, 12, 14),  # padded, by odd and even numbers
        (11, 11, 12),
        (4, 5, 6),  # cropped
        (5, 6, 3),
        (4, 12, 9),  # cropped, padded, left
        (12, 3, 15),
    ],
)
def test_the_field_of_view_is_what_the_scan_covers(shape: tuple[int, int, int]) -> None:
    data = np.arange(1.0, 1 + np.prod(SHAPE)).reshape(SHAPE)
    data[0, 0, 0] = 0  # so that 0 stays 0, and every other voxel is positive
    scan = scan_of(data, affine_of((2.0, 2.0, 2.0)))
    volume, box = normalise(scan, spacing=(2.0,) * 3, shape=shape, percentiles=(0.0, 100.0))
    assert volume.data.shape == (1, *shape)
    for (start, stop), before, after in zip(box, SHAPE, shape, strict=True):
        assert 0 <= start < stop <= after
        assert stop - start == min(before, after)
    inside = volume.data[0][crop(box)]
    padding = np.ones(shape, dtype=bool)
    padding[crop(box)] = False
    assert np.all(volume.data[0][padding] == 0)
    # Each voxel of the box is the voxel of the scan that has the same place in the world.
    first = np.array([start for start, _ in box])
    assert scan.affine is not None
    origin = np.linalg.solve(scan.affine, [*world(volume, first), 1.0])[:3]
    corner = np.rint(origin).astype(int)
    assert np.allclose(origin, corner, atol=1e-4)
    part = tuple(slice(c, c + n) for c, n in zip(corner, inside.shape, strict=True))
    assert np.allclose(inside, data[part] / data.max(), atol=1e-5)


def test_percentiles_become_0_and_1() -> None:
    data = np.random.default_rng(0).permutation(np.linspace(-500, 3000, 1000)).reshape(10, 10, 10)
    scan = scan_of(data, np.eye(4))
    whole, _ = normalise(scan, spacing=(1.0,) * 3, shape=(10,) * 3, percentiles=(0.0, 100.0))
    assert np.allclose(whole.data[0], (data + 500) / 3500, atol=1e-5)
    part, _ = normalise(scan, spacing=(1.0,) * 3, shape=(10,) * 3, percentiles=(5.0, 90.0))
    assert part.data.min() == 0
    assert part.data.max() == 1
    assert (part.data == 0).mean() == pytest.approx(0.05, abs=0.002)
    assert (part.data == 1).mean() == pytest.approx(0.10, abs=0.002)
    assert part.data.dtype == np.float32


def test_intensities_of_any_scale_become_the_same() -> None:
    data = np.random.default_rng(0).gamma(2, 50, (6, 6, 6))
    options = {"spacing": (1.0,) * 3, "shape": (6, 6, 6), "percentiles": (1.0, 99.0)}
    small, _ = normalise(scan_of(data, np.eye(4)), **options)
    large, _ = normalise(scan_of(data * 1e4, np.eye(4)), **options)
    assert np.allclose(small.data, large.data, atol=1e-5)


def test_a_scan_whose_percentiles_are_one_value_is_refused() -> None:
    """There is no scale from one value; a division by it would pass on raw intensities."""
    data = np.zeros((10, 10, 10))
    data[5, 5, 5] = 900
    with pytest.raises(Refused) as caught:
        normalise(
            scan_of(data, np.eye(4)), spacing=(1.0,) * 3, shape=(8, 8, 8), percentiles=(0.5, 99.5)
        )
    assert caught.value.code == "constant"


def labelled(affine: np.ndarray, values: int = 4) -> Volume:
    """Balls of several labels; the image is bright where the label is, so that both must agree."""
    index = np.indices((20, 24, 16))
    label = np.zeros(index.shape[1:], dtype=np.float32)
    for value in range(1, values):
        centre = np.array([5 * value, 4 + 5 * value, 7])[:, None, None, None]
        label[np.sqrt(((index - centre) ** 2).sum(axis=0)) < 4] = value
    return Volume(label[None] * 10 + 5, affine, label)


def oblique(degrees: float, spacing: tuple[float, float, float]) -> np.ndarray:
    angle = np.radians(degrees)
    turn = np.eye(4)
    turn[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return turn @ affine_of(spacing) @ np.diag([-1.0, 1, -1, 1])


@pytest.mark.parametrize("source", [(1.0, 1.0, 1.0), (0.9, 1.3, 2.1)])
@pytest.mark.parametrize("degrees", [0, 25])
@pytest.mark.parametrize("spacing", [1.0, 1.4])
def test_a_label_map_goes_with_its_image(
    source: tuple[float, float, float], degrees: float, spacing: float
) -> None:
    scan = labelled(oblique(degrees, source))
    volume, box = normalise(
        scan, spacing=(spacing,) * 3, shape=(40, 40, 40), percentiles=(0.0, 100.0)
    )
    label = volume.label
    assert label is not None
    assert label.dtype == np.float32
    assert label.shape == (40, 40, 40)
    assert set(np.unique(label)) == {0, 1, 2, 3}
    assert volume.channels.shape == (2, 40, 40, 40)
    padding = np.ones(label.shape, dtype=bool)
    padding[crop(box)] = False
    assert np.all(label[padding] == 0)
    # Linear and nearest values differ at the edges of a label alone.
    assert (np.abs(volume.data[0] * 3 - label)[crop(box)] < 0.01).mean() > 0.85
    assert scan.label is not None
    for value in (1, 2, 3):
        before = Volume((scan.label == value).astype(np.float32)[None], scan.affine)
        after = Volume((label == value).astype(np.float32)[None], volume.affine)
        assert np.linalg.norm(centre_of_mass(after) - centre_of_mass(before)) < 0.5


@pytest.mark.parametrize(
    "orientation", ORIENTATIONS[::5], ids=lambda o: "".join(map(str, o.ravel()))
)
def test_a_label_map_is_turned_as_its_image_is(orientation: np.ndarray) -> None:
    upright = landmark_scan(2.0)
    scan = turned(upright, orientation)
    label = (scan.data[0] / 100).astype(np.float32)
    options = {"spacing": (2.0,) * 3, "shape": (10, 11, 12), "percentiles": (0.0, 100.0)}
    volume, _ = normalise(Volume(scan.data, scan.affine, label), **options)
    assert volume.label is not None
    assert np.allclose(volume.label, volume.data[0] * 3, atol=1e-4)


def test_each_channel_has_a_scale_of_its_own() -> None:
    random = np.random.default_rng(0)
    data = random.gamma(2, 50, (2, 6, 6, 6)).astype(np.float32)
    data[1] = data[1] * 1e4 - 7
    options = {"spacing": (1.5,) * 3, "shape": (6, 6, 6), "percentiles": (1.0, 99.0)}
    both, _ = normalise(Volume(data, np.eye(4)), **options)
    for channel in (0, 1):
        alone, _ = normalise(Volume(data[[channel]], np.eye(4)), **options)
        assert np.array_equal(both.data[channel], alone.data[0])
        assert both.data[channel].max() == 1


def test_one_channel_without_a_scale_is_enough_to_be_refused() -> None:
    data = np.random.default_rng(0).random((2, 6, 6, 6), dtype=np.float32)
    data[1] = 3
    with pytest.raises(Refused, match="constant"):
        normalise(
            Volume(data, np.eye(4)), spacing=(1.0,) * 3, shape=(6, 6, 6), percentiles=(1.0, 99.0)
        )


@pytest.mark.parametrize("size", [200.0, 1e30, 1e200])
def test_a_scan_beyond_memory_at_the_spacing_is_refused(size: float) -> None:
    """As one of 0.2 mm whose header counts in micrometres; nothing is allocated for it."""
    affine = np.diag([size, size, size, 1.0])
    check_header((8, 9, 10), np.dtype("u1"), affine)
    scan = scan_of(np.random.default_rng(0).random((8, 9, 10)), affine)
    with pytest.raises(Refused, match="too-large"):
        normalise(scan, spacing=(1, 1, 1), shape=(8, 8, 8), percentiles=(0.5, 99.5))


@pytest.mark.parametrize(
    ("size", "asked", "kept"),
    [
        (0.04, 0.05, False),  # of a scan so fine, the difference of the squares is small
        (0.05, 0.05, True),
        (0.0500001, 0.05, True),
        (0.0495, 0.05, False),
        (0.0052, 0.005, False),
        (1.0004, 1.0, True),
        (1.002, 1.0, False),
        (2.0002, 2.0, True),
        (2.01, 2.0, False),
    ],
)
def test_a_scan_is_resampled_unless_it_has_the_spacing(
    size: float, asked: float, kept: bool
) -> None:
    scan = scan_of(np.random.default_rng(0).random((8, 9, 10)), affine_of((size,) * 3))
    volume, _ = normalise(scan, spacing=(asked,) * 3, shape=(16, 16, 16), percentiles=(0.0, 100.0))
    assert volume.spacing == pytest.approx((size if kept else asked,) * 3, rel=1e-9)


@pytest.mark.parametrize("size", [0.7, 1.0, 2.0])
def test_a_scan_a_power_of_two_as_fine_is_resampled_alike(size: float) -> None:
    """To the bit: the units in which it is done do not show."""
    scan = blob(affine_of((size, 1.3 * size, 0.9 * size)))
    assert scan.affine is not None
    rows = np.array([[2.0**-5], [2.0**-5], [2.0**-5], [1.0]])
    fine = Volume(scan.data, scan.affine * rows)
    options: dict[str, Any] = {"shape": (24, 24, 24), "percentiles": (0.0, 100.0)}
    volume, _ = normalise(scan, spacing=(1.1 * size,) * 3, **options)
    other, _ = normalise(fine, spacing=(1.1 * size * 2.0**-5,) * 3, **options)
    assert np.array_equal(volume.data, other.data)
    assert volume.affine is not None
    assert other.affine is not None
    assert np.array_equal(volume.affine * rows, other.affine)
