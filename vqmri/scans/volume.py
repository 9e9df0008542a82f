"""A volume in memory."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from vqmri.shapes import Box

Steps = list[dict[str, Any]]
"""What was done to a scan, in order; `step` names it, and all values are plain JSON."""

MOST_THINNED = 2**20
"""Voxels that quantiles and moments of a volume are taken of."""


@dataclass(frozen=True)
class Volume:
    """Voxels and where they are.

    data: the grey values, (channel, x, y, z); of a picture (channel, row, column), in its raster
        order: from the top down, then from left to right
    affine: voxel index to world coordinates in mm, 4×4, RAS+ world as in NIfTI; a picture has none
    label: the label map on the same grid, if the scan has one: indices into the label values
    mask: 1 in the brain and 0 elsewhere, on the same grid, if the scan has one
    qform: the other affine of a header that has two (NIfTI with both codes set), which nothing
        follows; not finite where it cannot be computed
    """

    data: Float[np.ndarray, "channel *space"]
    affine: Float[np.ndarray, "4 4"] | None = None
    label: Float[np.ndarray, "*space"] | None = None
    mask: Float[np.ndarray, "*space"] | None = None
    qform: Float[np.ndarray, "4 4"] | None = None

    @property
    def spacing(self) -> tuple[float, ...]:
        """Size of a voxel along each axis in mm; () for a picture."""
        if self.affine is None:
            return ()
        return tuple(float(s) for s in np.linalg.norm(self.affine[:3, :3], axis=0))

    @property
    def channels(self) -> Float[np.ndarray, "channel *space"]:
        """The grey values and after them, as the last channel, the label map if there is one."""
        if self.label is None:
            return self.data
        return np.concatenate([self.data, self.label[None]])


@dataclass(frozen=True)
class Normalised:
    """A volume that is like all others, and how it came to be.

    box: its field of view, the voxels that the scan covers; the rest is padding
    steps: what was done, in order, with every value that undoing it needs; none to a picture
    """

    volume: Volume
    box: Box
    steps: Steps


@dataclass(frozen=True)
class Channel:
    """What one channel of a volume is.

    label_values: of a label map, the value that each of its indices stands for, the background 0
        first; () for grey values
    """

    name: str
    label_values: tuple[int, ...] = ()


@dataclass(frozen=True)
class Candidate:
    """A scan that was found and not yet read.

    source: path relative to the raw folder (for one image of a file of many, with its number), or
        the name of a phantom
    subject: label of the person; all scans of a person stay on one side of the split
    label: path of the label map that belongs to it, "" if it is missing, None if none is asked for
    split: "train" or "held_out" where the source itself says so, else ""
    modalities: paths of the further channels, "" for a missing one
    files: paths of all files of a DICOM series, () for others
    mask: path of the brain mask that belongs to it, "" if it is missing, None if none is asked for
    alias: what outputs call it in place of its source, which may tell who it is
    """

    source: str
    subject: str
    covariates: dict[str, Any]
    label: str | None = None
    split: str = ""
    modalities: tuple[str, ...] = ()
    files: tuple[str, ...] = ()
    mask: str | None = None
    alias: str = ""

    @property
    def name(self) -> str:
        """What outputs call it."""
        return self.alias or self.source


@dataclass(frozen=True)
class Record:
    """One row of the table that is stored with the volumes; all values are plain JSON.

    index: position in the array of volumes
    source: the candidate's name
    sha256: of the raw file (of the voxels, for a phantom and for one image of a file of many)
    shape, affine: of the scan as it was read; the affine of a picture is []
    normalised_affine: of the stored volume, or []
    field_of_view: the part of the stored volume that the scan covers; the rest is padding
    steps: what was done to the scan, in order; see `scans.restore` for the way back
    split: "train" or "held_out"
    """

    index: int
    subject: str
    source: str
    sha256: str
    shape: list[int]
    affine: list[list[float]]
    normalised_affine: list[list[float]]
    field_of_view: list[list[int]]
    covariates: dict[str, Any]
    label: str | None
    split: str
    steps: Steps = field(default_factory=list)

    @property
    def box(self) -> Box:
        return tuple((start, stop) for start, stop in self.field_of_view)


@dataclass(frozen=True)
class Rejection:
    """A scan that was refused; `code` is one of `check.REFUSALS`."""

    source: str
    code: str
    reason: str


def code_box(box: Box, downsampling: int) -> Box:
    """The code positions that touch the voxels of `box`."""
    return tuple((start // downsampling, -(-stop // downsampling)) for start, stop in box)


def crop(box: Box) -> tuple[slice, ...]:
    """Index for the last axes of an array: `array[..., *crop(box)]`."""
    return tuple(slice(start, stop) for start, stop in box)


def thinned(
    data: Shaped[np.ndarray, "*space"], most: int = MOST_THINNED
) -> Shaped[np.ndarray, "*sparse"]:
    """Every voxel of a small scan; of a large one an even lattice of at most `most`.

    A percentile of a million that stand in no order is off by less than 0.02 percent of them. Steps
    are odd, because slices that were acquired in turns differ as even and odd.
    """
    steps = [1] * data.ndim
    sizes = list(data.shape)
    while int(np.prod(sizes)) > most:
        axis = int(np.argmax(sizes))
        steps[axis] += 2
        sizes[axis] = -(-data.shape[axis] // steps[axis])
    return data[tuple(slice(None, None, step) for step in steps)]
