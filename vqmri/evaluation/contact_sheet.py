"""A whole data set at a glance: one slice of each volume in a dense grid, and its intensities."""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image, ImageDraw, ImageFont

from vqmri.evaluation.montage import Plane, three_planes
from vqmri.scans.dataset import FOREGROUND

Colour = tuple[int, int, int]
"""Red, green and blue, 0 to 255."""

HELD_OUT_COLOUR = (60, 140, 255)
DOUBTFUL_COLOUR = (255, 140, 0)
TRAIN_COLOUR = (90, 90, 90)
MOST_PIXELS = 1600
"""Of a sheet's width."""

_BINS = 64
_BACKGROUND, _INK = 38, 215
_MARGIN = 20  # pixels at the top and on the left, for the numbers of columns and rows
_GAP = 3  # pixels between the cells
_RING = 3  # pixels of a frame; the one for doubts lies inside the one for held-out scans
_EDGE = _GAP + 2 * _RING
_FEWEST_COLUMNS = 10
_TALL = 1.5  # height of a tile over its width, at most


@dataclass(frozen=True)
class Tile:
    """A slice with values in [0, 1], and how it is marked."""

    plane: Plane
    held_out: bool = False
    doubtful: bool = False


@dataclass(frozen=True)
class Measured:
    """Intensities of one volume in its field of view.

    histogram: voxels in equal bins from 0 to 1
    numbers: those that dataset.json has the spread of, by name
    """

    histogram: Int[np.ndarray, "bin"]
    numbers: Mapping[str, float]

    @classmethod
    def of(cls, values: Float[np.ndarray, "channel *space"]) -> "Measured":
        """Of the voxels in the field of view."""
        counts, _ = np.histogram(np.clip(values, 0, 1), bins=_BINS, range=(0, 1))
        numbers = {
            "foreground": float((values > FOREGROUND).mean()),
            "mean": float(values.mean(dtype=np.float64)),
            "std": float(values.std(dtype=np.float64)),
        }
        return cls(counts, numbers)


@dataclass(frozen=True)
class Side:
    """Some volumes of one side of the split."""

    name: str
    colour: Colour
    measured: Sequence[Measured]


def middle_slice(volume: Float[np.ndarray, "channel *space"]) -> Plane:
    """The axial one of an RAS volume's first channel, the front on top; of a picture itself."""
    if volume.ndim == 4:
        return three_planes(volume[0])[2]
    return np.moveaxis(volume, 0, -1) if len(volume) == 3 else volume[0]


def num_columns(count: int) -> int:
    """Columns of a sheet of `count` tiles: a square, or less than that of few tiles."""
    return min(count, max(_FEWEST_COLUMNS, int(np.ceil(np.sqrt(count)))))


def contact_sheet(tiles: Sequence[Tile]) -> bytes:
    """PNG of at least one tile, all of one shape, row by row; rows and columns are numbered."""
    columns = num_columns(len(tiles))
    room = (MOST_PIXELS - _MARGIN) // columns - _GAP - 4 * _RING
    planes = [_fitted(tile.plane, room) for tile in tiles]
    height, width = (n + _GAP + 4 * _RING for n in planes[0].shape[:2])
    rows = -(-len(tiles) // columns)
    shape = (_MARGIN + rows * height + _GAP, _MARGIN + columns * width, 3)
    sheet = np.full(shape, _BACKGROUND, dtype=np.uint8)
    for number, (tile, plane) in enumerate(zip(tiles, planes, strict=True)):
        row, column = divmod(number, columns)
        top, left = _MARGIN + row * height, _MARGIN + column * width
        _put(sheet[top : top + height, left : left + width], tile, plane)
    image = Image.fromarray(sheet)
    _number(image, rows, height, columns, width)
    file = io.BytesIO()
    image.save(file, format="png")
    return file.getvalue()


def _fitted(plane: Plane, room: int) -> UInt8[np.ndarray, "h w 3"]:
    """Enlarged by a whole factor, or else shrunk, to at most `room` pixels across; in colour."""
    grey = np.rint(255 * np.clip(plane, 0, 1)).astype(np.uint8)
    coloured = grey if grey.ndim == 3 else np.repeat(grey[..., None], 3, axis=-1)
    height, width = coloured.shape[:2]
    scale = min(room / width, _TALL * room / height)
    if scale >= 1:
        return coloured.repeat(int(scale), axis=0).repeat(int(scale), axis=1)
    size = (max(int(width * scale), 1), max(int(height * scale), 1))
    return np.asarray(Image.fromarray(coloured).resize(size, Image.Resampling.BOX))


def _put(cell: UInt8[np.ndarray, "h w 3"], tile: Tile, plane: UInt8[np.ndarray, "y x 3"]) -> None:
    """Write a tile into its part of the sheet: gap, ring, ring, slice."""
    height, width = plane.shape[:2]
    marks = ((tile.held_out, HELD_OUT_COLOUR), (tile.doubtful, DOUBTFUL_COLOUR))
    for number, (marked, colour) in enumerate(marks):
        start = number * _RING
        inside = (slice(start, 4 * _RING + n - start) for n in (height, width))
        cell[tuple(inside)] = colour if marked else _BACKGROUND
    cell[2 * _RING : 2 * _RING + height, 2 * _RING : 2 * _RING + width] = plane


def _number(image: Image.Image, rows: int, height: int, columns: int, width: int) -> None:
    draw, font = ImageDraw.Draw(image), ImageFont.load_default_imagefont()
    for row in range(rows):
        y = _MARGIN + row * height + (height - _GAP) // 2
        draw.text((3, y - 5), str(row + 1), (_INK,) * 3, font)
    for column in range(columns):
        x = _MARGIN + column * width + (width - _GAP) // 2
        draw.text((x - 5, 4), str(column + 1), (_INK,) * 3, font)


def sheet_caption(tiles: Sequence[Tile], count: int, what: str) -> str:
    """What the sheet shows and what its frames mean; `count` scans are there in all."""
    held, odd = (sum(getattr(tile, name) for tile in tiles) for name in ("held_out", "doubtful"))
    first = ", those with an orange frame first" if odd else ""
    left_out = f", evenly chosen{first}" if len(tiles) < count else ""
    orange = (
        " Orange frame: it has a warning, or a duplicate on the other side of the split "
        f"({odd})." if odd else ""
    )  # fmt: skip
    return (
        f"{len(tiles)} of {count} scans{left_out}, by their names, row by row; of each the {what}. "
        f"Blue frame: held out ({held}).{orange}"
    )


def intensity_panels(sides: Sequence[Side], spreads: Mapping[str, Mapping[str, float]]) -> bytes:
    """PNG: histograms, and per name of `spreads` the values of single scans.

    spreads: min, q1, median, q3 and max of all scans, by name; {} for the histograms alone
    """
    figure = Figure(figsize=(4.6 + 2.2 * len(spreads), 3.1), layout="constrained")
    ratios = [4.6, *[2.2] * len(spreads)]
    axes = figure.subplots(1, len(ratios), squeeze=False, width_ratios=ratios)[0]
    _histograms(axes[0], sides)
    for axis, (name, spread) in zip(axes[1:], spreads.items(), strict=True):
        _scans(axis, name, sides, spread)
    for axis in axes:
        axis.tick_params(labelsize=8)
        axis.grid(alpha=0.3)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=110, metadata={"Software": None})
    return file.getvalue()


def panels_caption(sides: Sequence[Side], spreads: Mapping[str, object]) -> str:
    """What the panels show, of how many scans."""
    read = " and ".join(f"{len(side.measured)} {side.name}" for side in sides)
    text = f"Intensities in the field of view, of {read} scans."
    if not spreads:
        return text
    return (
        f"{text} A dot is one of them; the box is of all scans: quartiles, least and most. "
        f"foreground: share of the field of view above {FOREGROUND:g}."
    )


def _histograms(axis: Axes, sides: Sequence[Side]) -> None:
    for side in sides:
        counts = np.sum([one.histogram for one in side.measured], axis=0)
        shares = counts / counts.sum()
        edges = np.linspace(0, 1, len(shares) + 1)
        axis.stairs(
            shares, edges, label=side.name, color=_of_matplotlib(side.colour), linewidth=1.3
        )
    axis.set_yscale("log")  # the air is most of a head
    axis.set_xlim(0, 1)
    axis.set_title("Intensities", fontsize=10)
    axis.set_xlabel("normalised intensity", fontsize=8)
    axis.set_ylabel("share of the voxels", fontsize=8)
    axis.legend(fontsize=8)


def _scans(axis: Axes, name: str, sides: Sequence[Side], spread: Mapping[str, float]) -> None:
    """A box of all scans, and beside it a dot for each volume that was read, side by side."""
    if spread:
        box = {"med": spread["median"], "q1": spread["q1"], "q3": spread["q3"]}
        whiskers = {"whislo": spread["min"], "whishi": spread["max"]}
        axis.bxp([box | whiskers], positions=[0], widths=0.5, showfliers=False)
    for place, side in enumerate(sides, start=1):
        values = [one.numbers[name] for one in side.measured]
        apart = np.linspace(-0.25, 0.25, len(values))
        axis.scatter(place + apart, values, s=7, color=_of_matplotlib(side.colour), alpha=0.8)
    axis.set_xticks(range(len(sides) + 1), ["all", *(side.name for side in sides)])
    axis.set_xlim(-0.5, len(sides) + 0.5)
    axis.set_title(name, fontsize=10)


def _of_matplotlib(colour: Colour) -> tuple[float, float, float]:
    red, green, blue = (value / 255 for value in colour)
    return red, green, blue
