from io import BytesIO

import numpy as np
import pytest
from PIL import Image

from vqmri.evaluation.contact_sheet import (
    DOUBTFUL_COLOUR,
    HELD_OUT_COLOUR,
    MOST_PIXELS,
    Measured,
    Side,
    Tile,
    contact_sheet,
    intensity_panels,
    middle_slice,
    num_columns,
    panels_caption,
    sheet_caption,
)


def opened(png: bytes) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(png)).convert("RGB"))


def of_colour(image: np.ndarray, colour: tuple[int, int, int]) -> np.ndarray:
    return (image == colour).all(axis=-1)


def shade(value: float, shape: tuple[int, ...] = (8, 8)) -> np.ndarray:
    return np.full(shape, value)


def test_the_slice_of_a_volume_is_axial_of_its_first_channel_with_the_front_on_top() -> None:
    volume = np.zeros((2, 4, 6, 8))
    volume[0, :, 5, 4] = 1  # the front, in the middle from top to bottom
    volume[1] = 0.5
    plane = middle_slice(volume)
    assert plane.shape == (6, 4)
    assert plane[0].min() == 1
    assert plane[1:].max() == 0


def test_the_slice_of_a_picture_is_itself() -> None:
    picture = np.random.default_rng(0).random((3, 5, 7))
    assert np.array_equal(middle_slice(picture)[..., 1], picture[1])
    assert np.array_equal(middle_slice(picture[:1]), picture[0])


@pytest.mark.parametrize("count", [1, 9, 10, 11, 137])
def test_every_tile_is_on_the_sheet_once_in_its_place(count: int) -> None:
    values = 40 + np.arange(count)  # neither the background's shade nor that of the numbers
    image = opened(contact_sheet([Tile(shade(value / 255)) for value in values]))
    columns = num_columns(count)
    assert columns == min(count, 12 if count == 137 else 10)
    centres = []
    for value in values:
        rows, across = np.nonzero((image == value).all(axis=-1))
        centres.append((round(float(rows.mean())), round(float(across.mean()))))
    assert len({row for row, _ in centres}) == -(-count // columns)
    assert len({column for _, column in centres}) == columns
    assert centres == sorted(centres)  # row by row, from left to right


def test_marks_are_round_the_tiles_that_have_them() -> None:
    tiles = [
        Tile(shade(0.8)), Tile(shade(0.6), held_out=True), Tile(shade(0.4), doubtful=True),
        Tile(shade(0.2), held_out=True, doubtful=True),
    ]  # fmt: skip
    image = opened(contact_sheet(tiles))
    for tile in tiles:
        grey = round(255 * float(tile.plane[0, 0]))
        rows, columns = np.nonzero((image == grey).all(axis=-1))
        frame = image[rows.min() - 6 : rows.max() + 7, columns.min() - 6 : columns.max() + 7]
        for colour, marked in ((HELD_OUT_COLOUR, tile.held_out), (DOUBTFUL_COLOUR, tile.doubtful)):
            found = of_colour(frame, colour)
            assert found.any() == marked
            if marked:  # on all four sides
                top, left = (np.nonzero(found.any(axis=axis))[0] for axis in (1, 0))
                assert top.max() - top.min() > np.ptp(rows) + 3
                assert left.max() - left.min() > np.ptp(columns) + 3
    assert not of_colour(opened(contact_sheet(tiles[:1])), HELD_OUT_COLOUR).any()


@pytest.mark.parametrize("count", [1, 30, 400])
@pytest.mark.parametrize("shape", [(28, 28), (208, 160), (8, 300), (300, 8), (2000, 1700), (5, 5)])
def test_a_sheet_is_no_wider_than_a_screen(count: int, shape: tuple[int, int]) -> None:
    height, width, _ = opened(contact_sheet([Tile(shade(0.5, shape))] * count)).shape
    assert width <= MOST_PIXELS
    assert height <= 2 * MOST_PIXELS


def test_small_slices_are_enlarged_by_whole_factors_and_large_ones_keep_their_mean() -> None:
    pattern = np.array([[0.2, 0.4], [0.6, 0.8]])
    image = opened(contact_sheet([Tile(pattern)] * 20))
    areas = [int((image == round(255 * value)).all(axis=-1).sum()) for value in pattern.flat]
    assert len(set(areas)) == 1
    assert np.sqrt(areas[0] / 20) == int(np.sqrt(areas[0] / 20)) > 40
    stripes = np.tile([0.0, 1.0], (900, 900))
    image = opened(contact_sheet([Tile(stripes)] * 10))
    assert abs(int(image[image.shape[0] // 2, 80, 0]) - 128) < 12  # a shrunk one is no alias


def test_colours_stay_and_values_outside_the_range_do_not_wrap() -> None:
    red = np.zeros((9, 9, 3))
    red[..., 0] = 1.4
    red[..., 1] = -0.3
    assert of_colour(opened(contact_sheet([Tile(red)])), (255, 0, 0)).sum() > 81


def test_equal_tiles_are_equal_bytes() -> None:
    tiles = [Tile(np.random.default_rng(0).random((8, 8)))] * 3
    assert contact_sheet(tiles) == contact_sheet(tiles)


def test_the_caption_says_what_was_left_out_and_what_the_frames_mean() -> None:
    tiles = [Tile(shade(0.0), held_out=True)] * 2 + [Tile(shade(0.0), doubtful=True)]
    whole = sheet_caption(tiles, 3, "picture")
    assert whole.startswith("3 of 3 scans, by")
    assert "Blue frame: held out (2)." in whole
    assert "split (1)." in whole
    part = sheet_caption(tiles, 70, "picture")
    assert part.startswith("3 of 70 scans, evenly chosen, those with an orange frame first")
    plain = sheet_caption(tiles[:2], 70, "picture")
    assert "orange" not in plain.lower()


def test_measured_numbers_are_those_of_the_values() -> None:
    values = np.array([[[0.0, 0.04, 0.5, 1.0]]])
    found = Measured.of(values)
    assert found.histogram.sum() == 4
    assert found.histogram[0] == 1
    assert found.histogram[32] == found.histogram[-1] == 1
    assert found.numbers["foreground"] == 0.5
    assert found.numbers["mean"] == pytest.approx(values.mean())
    assert found.numbers["std"] == pytest.approx(values.std())


def test_panels_show_both_sides_and_one_more_per_number() -> None:
    random = np.random.default_rng(0)
    sides = [
        Side(name, colour, [Measured.of(random.random((1, 4, 4))) for _ in range(count)])
        for name, colour, count in (("train", (0, 200, 0), 7), ("held out", HELD_OUT_COLOUR, 2))
    ]
    spread = {"min": 0.1, "q1": 0.4, "median": 0.5, "q3": 0.6, "max": 0.9}
    plain, full = (
        opened(intensity_panels(sides, spreads)) for spreads in ({}, {"mean": spread, "std": {}})
    )
    assert full.shape[0] == plain.shape[0]
    assert full.shape[1] > 1.5 * plain.shape[1]
    for side in sides:
        assert of_colour(plain, side.colour).any()
    assert panels_caption(sides, {}) == (
        "Intensities in the field of view, of 7 train and 2 held out scans."
    )
    assert "box" in panels_caption(sides, {"mean": spread})
    assert intensity_panels(sides, {}) == intensity_panels(sides, {})
