import numpy as np
import pytest
from PIL import Image

from vqmri.scans.raster import fit, recolour, to_volume
from vqmri.scans.volume import Volume


def gradient(rows: int, columns: int) -> Volume:
    """Intensity rises down the rows in the first channel, along the columns in the second."""
    down, along = np.meshgrid(np.linspace(0, 1, rows), np.linspace(0, 1, columns), indexing="ij")
    return Volume(np.stack([down, along]).astype(np.float32))


def test_pixels_become_intensities_from_0_to_1() -> None:
    pixels = np.arange(2 * 3 * 3, dtype=np.uint8).reshape(2, 3, 3) * 15
    volume = to_volume(pixels)
    assert volume.data.shape == (3, 2, 3)
    assert volume.data.dtype == np.float32
    assert np.allclose(volume.data[1], pixels[..., 1] / 255)
    assert to_volume(np.full((1, 1, 1), 255, dtype=np.uint8)).data.max() == 1


def test_a_picture_of_the_size_is_untouched() -> None:
    volume = gradient(6, 9)
    done = fit(volume, (6, 9))
    found, box = done.volume, done.box
    assert found is volume
    assert box == ((0, 6), (0, 9))


@pytest.mark.parametrize("shape", [(12, 18), (3, 4), (20, 9), (6, 8)])
def test_a_picture_of_another_size_is_made_to_fit(shape: tuple[int, int]) -> None:
    done = fit(gradient(6, 9), shape)
    found, box = done.volume, done.box
    assert found.data.shape == (2, *shape)
    assert box == ((0, shape[0]), (0, shape[1]))
    assert found.data.min() >= 0
    assert found.data.max() <= 1
    assert np.all(np.diff(found.data[0], axis=0) > -1e-6)  # rows still go down
    assert np.all(np.diff(found.data[1], axis=1) > -1e-6)
    assert np.allclose(found.data[0], found.data[0][:, :1], atol=1e-5)


def test_what_does_not_fit_is_cut_off_on_both_sides() -> None:
    data = np.zeros((1, 4, 8), dtype=np.float32)
    data[..., 2:6] = 1
    found = fit(Volume(data), (4, 4)).volume
    assert np.all(found.data == 1)


def test_no_overshoot() -> None:
    data = np.zeros((1, 4, 4), dtype=np.float32)
    data[..., 2:] = 1
    found = fit(Volume(data), (16, 16)).volume
    assert found.data.min() == 0
    assert found.data.max() == 1


def test_grey_and_colour() -> None:
    red = Image.new("RGB", (3, 2), (255, 0, 0))
    assert recolour(red, 3).tolist() == [[[255, 0, 0]] * 3] * 2
    assert recolour(red, 1).tolist() == [[[76]] * 3] * 2
    grey = Image.new("L", (3, 2), 9)
    assert recolour(grey, 1).tolist() == [[[9]] * 3] * 2
    assert recolour(grey, 3).tolist() == [[[9, 9, 9]] * 3] * 2


def test_what_is_transparent_lies_on_black() -> None:
    clear = Image.new("RGBA", (2, 2), (200, 100, 50, 0))
    assert recolour(clear, 3).max() == 0
    assert recolour(Image.new("RGBA", (2, 2), (200, 100, 50, 255)), 3)[0, 0].tolist() == [
        200, 100, 50,
    ]  # fmt: skip
