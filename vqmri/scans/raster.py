"""Pictures: pixels of eight bits to volumes of two axes.

The two spatial axes of a picture are its rows and its columns, in that order, as in its array.
"""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageOps

from vqmri.scans.volume import Normalised, Volume

Pixels = UInt8[np.ndarray, "row column channel"]

COLOURS = {1: ("image",), 3: ("red", "green", "blue")}
"""Names of the channels of a picture, by their number."""

_MODES = {1: "L", 3: "RGB"}


def to_volume(pixels: Pixels) -> Volume:
    """Intensities in [0, 1], channels first."""
    return Volume(np.moveaxis(pixels, -1, 0).astype(np.float32, order="C") / 255)


def recolour(image: Image.Image, channels: int) -> Pixels:
    """Pixels in grey or RGB, the right way up; what is transparent lies on black."""
    image = ImageOps.exif_transpose(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), image)
    pixels = np.asarray(image.convert(_MODES[channels]))
    return pixels.reshape(*pixels.shape[:2], channels)


def fit(volume: Volume, shape: Sequence[int]) -> Normalised:
    """Resize and crop about the centre, so that the picture fills `shape` (rows, columns).

    A picture of this size stays as it is. Its field of view is all of it.
    """
    rows, columns = shape
    box = ((0, rows), (0, columns))
    if volume.data.shape[1:] != (rows, columns):
        volume = Volume(np.stack([_fit(plane, rows, columns) for plane in volume.data]))
    return Normalised(volume, box, [])


def _fit(plane: Float[np.ndarray, "row column"], rows: int, columns: int) -> np.ndarray:
    """Bicubic, with the overshoot at edges cut off."""
    image = ImageOps.fit(Image.fromarray(plane), (columns, rows), Image.Resampling.BICUBIC)
    return np.clip(np.asarray(image), 0, 1)
