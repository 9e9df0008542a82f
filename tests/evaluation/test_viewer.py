from collections.abc import Sequence
from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from vqmri.evaluation import viewer as module
from vqmri.evaluation.montage import three_planes
from vqmri.evaluation.viewer import CONVENTION, PLANES, Viewer, grey, mosaic, mosaics

SHAPE = (4, 6, 10)


def volumes(
    count: int, shape: tuple[int, int, int] = SHAPE, seed: int = 0
) -> list[tuple[str, np.ndarray]]:
    random = np.random.default_rng(seed)
    return [(f"v{i}", random.integers(0, 256, shape, np.uint8)) for i in range(count)]


def opened(png: bytes) -> np.ndarray:
    image = Image.open(BytesIO(png))
    assert image.mode == "L"
    return np.asarray(image)


def voxels_of(picture: np.ndarray, shape: Sequence[int], columns: int) -> np.ndarray:
    """The volume again, slice by slice."""
    x, y, z = shape
    back = np.empty((x, y, z), np.uint8)
    for k in range(z):
        row, column = divmod(k, columns)
        tile = picture[row * y : (row + 1) * y, column * x : (column + 1) * x]
        back[:, :, k] = tile[::-1].T
    return back


@pytest.mark.parametrize("columns", [1, 3, 10])
def test_a_mosaic_holds_every_axial_slice_as_it_is_looked_at(columns: int) -> None:
    volume = volumes(1)[0][1]
    picture = mosaic(volume, columns)
    assert np.array_equal(voxels_of(picture, SHAPE, columns), volume)
    row, column = divmod(SHAPE[2] // 2, columns)
    tile = picture[row * 6 : row * 6 + 6, column * 4 : column * 4 + 4]
    assert np.array_equal(tile, np.asarray(three_planes(volume / 255)[2]) * 255)
    assert picture.size == picture.shape[0] * columns * 4


def test_the_planes_are_those_of_the_pictures() -> None:
    volume = volumes(1)[0][1] / 255
    for (across, up, through), expected in zip(PLANES.values(), three_planes(volume), strict=True):
        plane = np.take(volume, SHAPE[through] // 2, axis=through)
        axes = [axis for axis in range(3) if axis != through]
        assert [across, up] == axes
        assert np.array_equal(np.flipud(plane.T), expected)


def test_a_viewer_becomes_pictures_that_hold_its_voxels() -> None:
    first, second = volumes(3), volumes(3, seed=1)
    made = mosaics(Viewer("Heads.", first, (1.0, 2.0, 3.0), second))
    assert made.caption == f"Heads. {CONVENTION}"
    assert (made.shape, made.spacing) == (SHAPE, (1.0, 2.0, 3.0))
    assert [len(row) for row in made.rows] == [3, 3]
    for row, given in zip(made.rows, (first, second), strict=True):
        for (title, png), (name, volume) in zip(row, given, strict=True):
            assert title == name
            assert np.array_equal(voxels_of(opened(png), SHAPE, made.columns), volume)
    height, width = opened(made.rows[0][0][1]).shape
    assert 0.5 < width / height < 2
    assert mosaics(Viewer("Heads.", first, (1.0, 2.0, 3.0), second)) == made
    assert len(mosaics(Viewer("", first, (1.0, 1.0, 1.0))).rows) == 1


@pytest.mark.parametrize("limit", ["MOST_BYTES", "MOST_PIXELS"])
def test_volumes_are_shrunk_until_they_fit(monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
    given = volumes(2, (16, 20, 24))
    whole = mosaics(Viewer("Heads.", given, (1.0, 1.0, 2.0)))
    sizes = [len(png) for _, png in whole.rows[0]]
    monkeypatch.setattr(module, "MOST_BYTES", sum(sizes))
    assert mosaics(Viewer("Heads.", given, (1.0, 1.0, 2.0))) == whole
    monkeypatch.setattr(module, limit, sum(sizes) // 4)
    small = mosaics(Viewer("Heads.", given, (1.0, 1.0, 2.0)))
    assert "1 voxel in 2 is kept along each axis" in small.caption
    assert (small.shape, small.spacing) == ((8, 10, 12), (2.0, 2.0, 4.0))
    picture = opened(small.rows[0][1][1])
    assert np.array_equal(
        voxels_of(picture, small.shape, small.columns), given[1][1][::2, ::2, ::2]
    )


def test_an_axis_of_one_voxel_outlives_shrinking(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_PIXELS", 9)
    assert mosaics(Viewer("", volumes(1, (9, 9, 1)), (1.0, 1.0, 1.0))).shape == (3, 3, 1)


def test_too_many_volumes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MOST_BYTES", 100)
    with pytest.raises(ValueError, match="3 volumes are too many"):
        mosaics(Viewer("", volumes(3), (1.0, 1.0, 1.0)))


def test_what_does_not_go_together_is_refused() -> None:
    with pytest.raises(ValueError, match="needs volumes"):
        Viewer("", [], (1.0, 1.0, 1.0))
    with pytest.raises(ValueError, match="for each or for none"):
        Viewer("", volumes(2), (1.0, 1.0, 1.0), volumes(1))
    with pytest.raises(ValueError, match="one shape"):
        Viewer("", volumes(1), (1.0, 1.0, 1.0), volumes(1, (4, 6, 8)))


def test_intensities_become_bytes() -> None:
    values = np.array([-1, 0, 0.5, 1, 2]).reshape(5, 1, 1)
    assert grey(values).ravel().tolist() == [0, 0, 128, 255, 255]
