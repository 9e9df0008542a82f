"""Volumes for a viewer in a web page: each becomes one grey picture of all its axial slices."""

import io
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

Grey = UInt8[np.ndarray, "_x _y _z"]
"""0 black to 255 white; axes RAS."""

MOST_BYTES = 6_000_000
"""Of all pictures of one viewer together."""
MOST_PIXELS = 4096**2
"""Of one picture; some browsers draw no larger canvas."""

PLANES = {"sagittal": (1, 2, 0), "coronal": (0, 2, 1), "axial": (0, 1, 2)}
"""Of each plane the axes that run to the right, upwards, and through the slices."""

CONVENTION = (
    "Up is superior in sagittal and coronal planes and anterior in axial ones. The left of a "
    "picture is the subject's left; in sagittal planes it is the back."
)


@dataclass(frozen=True)
class Viewer:
    """Volumes of one shape, of which a reader chooses one and scrolls through its slices.

    volumes: title and voxels of each
    spacing: mm along x, y and z
    related: one per volume, such as the training scan nearest to it; scrolled together with it
    Raises ValueError without volumes, and for related ones or shapes that do not fit them.
    """

    caption: str
    volumes: Sequence[tuple[str, Grey]]
    spacing: tuple[float, float, float]
    related: Sequence[tuple[str, Grey]] = ()

    def __post_init__(self) -> None:
        if not self.volumes or len(self.related) not in (0, len(self.volumes)):
            raise ValueError("a viewer needs volumes, and a related one for each or for none")
        shapes = {voxels.shape for _, voxels in (*self.volumes, *self.related)}
        if len(shapes) > 1:
            raise ValueError(f"volumes of one viewer have one shape, not {sorted(shapes)}")


@dataclass(frozen=True)
class Mosaics:
    """A viewer as a page holds it.

    rows: PNG pictures of the volumes and, where there are any, of the related ones, with titles
    shape, spacing: of the shrunken volumes
    columns: slices side by side in a picture
    """

    caption: str
    rows: Sequence[Sequence[tuple[str, bytes]]]
    shape: tuple[int, int, int]
    spacing: tuple[float, float, float]
    columns: int


def grey(volume: Float[np.ndarray, "x y z"]) -> Grey:
    """Intensities 0 to 1 as 0 to 255; what is outside is cut off."""
    return np.rint(np.clip(volume, 0, 1) * 255).astype(np.uint8)


def mosaics(viewer: Viewer) -> Mosaics:
    """Every stride-th voxel along each axis, with the least stride that MOST_BYTES has room for.

    ValueError when there are so many volumes that not even single voxels fit.
    """
    both = [*viewer.volumes, *viewer.related]
    across, along, up = viewer.spacing
    for stride in range(1, max(both[0][1].shape) + 1):
        small = [voxels[::stride, ::stride, ::stride] for _, voxels in both]
        x, y, z = small[0].shape
        columns = math.ceil(math.sqrt(z * y / x))  # makes the picture about square
        if x * columns * y * math.ceil(z / columns) > MOST_PIXELS:
            continue
        if (pictures := _within(MOST_BYTES, (_png(mosaic(v, columns)) for v in small))) is None:
            continue
        titled = [(title, png) for (title, _), png in zip(both, pictures, strict=True)]
        count = len(viewer.volumes)
        return Mosaics(
            caption=_caption(viewer.caption, stride),
            rows=[row for row in (titled[:count], titled[count:]) if row],
            shape=(x, y, z),
            spacing=(stride * across, stride * along, stride * up),
            columns=columns,
        )
    raise ValueError(f"{len(both)} volumes are too many for one viewer")


def mosaic(volume: Grey, columns: int) -> UInt8[np.ndarray, "height width"]:
    """Axial slices in rows, the lowest first, each with the front on top; the rest is black."""
    x, y, z = volume.shape
    rows = math.ceil(z / columns)
    tiles = np.zeros((rows * columns, y, x), np.uint8)
    tiles[:z] = volume.T[:, ::-1]
    return tiles.reshape(rows, columns, y, x).swapaxes(1, 2).reshape(rows * y, columns * x)


def _caption(caption: str, stride: int) -> str:
    shrunk = f" Shrunk for this page: 1 voxel in {stride} is kept along each axis."
    return f"{caption} {CONVENTION}{shrunk if stride > 1 else ''}"


def _within(most: int, pictures: Iterable[bytes]) -> list[bytes] | None:
    """All pictures, or None as soon as they have more bytes than `most`."""
    kept, total = [], 0
    for picture in pictures:
        kept.append(picture)
        total += len(picture)
        if total > most:
            return None
    return kept


def _png(plane: UInt8[np.ndarray, "height width"]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(plane).save(file, "png")
    return file.getvalue()
