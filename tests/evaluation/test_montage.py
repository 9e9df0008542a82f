from io import BytesIO

import matplotlib.image
import numpy as np
import pytest

from vqmri.evaluation.montage import (
    curves,
    montage,
    one_slice,
    picture,
    strip,
    three_planes,
)


def opened(png: bytes) -> np.ndarray:
    return np.asarray(matplotlib.image.imread(BytesIO(png)))


def test_planes_of_an_ras_volume_have_up_on_top() -> None:
    volume = np.zeros((4, 6, 8))
    volume[:, :, 7] = 1  # the crown of the head
    sagittal, coronal, axial = three_planes(volume)
    assert sagittal.shape == (8, 6)
    assert coronal.shape == (8, 4)
    assert axial.shape == (6, 4)
    assert sagittal[0].min() == 1
    assert sagittal[1:].max() == 0


def test_planes_go_through_the_centre() -> None:
    volume = np.arange(4 * 6 * 8.0).reshape(4, 6, 8)
    sagittal, coronal, axial = three_planes(volume)
    assert sagittal[-1, 0] == volume[2, 0, 0]
    assert coronal[-1, 0] == volume[0, 3, 0]
    assert axial[-1, 0] == volume[0, 0, 4]


def test_a_strip_has_room_for_all_three_planes_of_each_channel() -> None:
    assert strip(np.zeros((1, 4, 6, 8))).shape == (8, 6 + 4 + 4 + 3 * 2)
    volume = np.zeros((2, 4, 6, 8))
    volume[1] = 1
    both = strip(volume)
    assert both.shape == (8, 2 * (6 + 4 + 4 + 3 * 2))
    assert both[:, :20].max() == 0
    assert both[:, 20:26].min() == 1
    axial = both[:, 20 + 6 + 2 + 4 + 2 :][:, :4]
    assert axial[:2].max() == 0  # lower than the others, and at the bottom
    assert axial[2:].min() == 1


@pytest.mark.parametrize("show", [strip, one_slice, picture])
def test_pictures_are_shown_as_they_are_grey_or_rgb(show: object) -> None:
    assert callable(show)
    grey, colour = np.random.default_rng(0).random((1, 5, 7)), np.ones((3, 5, 7))
    colour[1:] = 0  # red
    shown = show(grey)
    assert shown.shape == (7, 9)
    assert np.array_equal(shown[1:-1, 1:-1], grey[0])
    shown = show(colour)
    assert shown.shape == (7, 9, 3)
    assert (shown[1:-1, 1:-1] == [1, 0, 0]).all()
    assert shown[0].max() == shown[:, 0].max() == 0  # the edge


def test_one_slice_of_a_volume_is_coronal_and_of_its_first_channel() -> None:
    volume = np.random.default_rng(0).random((2, 4, 6, 8))
    assert np.array_equal(one_slice(volume), three_planes(volume[0])[1])


def test_montage_is_a_png_that_shows_its_pictures() -> None:
    bright, dark = np.ones((20, 20)), np.zeros((20, 20))
    image = opened(montage([[bright, dark]], ["a", "b"], ["row"], scale=5))
    half = image.shape[1] // 2
    assert image[:, :half, 0].mean() > image[:, half:, 0].mean() + 0.3


def test_montage_keeps_colours_and_rows() -> None:
    red, blue = np.zeros((2, 20, 20, 3))
    red[..., 0], blue[..., 2] = 1, 1
    image = opened(montage([[red], [blue]], [], [], scale=5))
    half = image.shape[0] // 2
    centre = image.shape[1] // 2
    assert image[half // 2, centre, :3].tolist() == [1, 0, 0]
    assert image[half + half // 2, centre, :3].tolist() == [0, 0, 1]


def test_long_labels_lie_flat_and_take_more_room() -> None:
    rows = [[np.zeros((20, 20))]] * 2
    labels = ["a label that is long", "and another one"]
    upright = opened(montage(rows, [], labels, scale=10))
    flat = opened(montage(rows, [], labels, scale=10, flat_labels=True))
    assert len(flat) == len(upright)
    assert flat.shape[1] > upright.shape[1]
    black = [(image[:, :, :3] == 0).all(axis=2).sum() for image in (upright, flat)]
    assert black[1] > 0.8 * black[0]  # the pictures are not made smaller for them


def test_curves_skip_rows_that_lack_a_name() -> None:
    history = [{"step": 1.0, "a": 1.0}, {"step": 2.0, "a": 2.0, "b": 3.0}]
    assert curves(history, {"both": ["a", "b"]}).startswith(b"\x89PNG")
    assert curves(history, {"one": ["a"]}) != curves(history, {"one": ["b"]})


def test_equal_pictures_are_equal_bytes() -> None:
    rows = [[np.random.default_rng(0).random((5, 5))]]
    assert montage(rows, ["a"], ["b"], scale=3) == montage(rows, ["a"], ["b"], scale=3)
