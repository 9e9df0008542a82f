"""A volume in memory."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from vqmri.shapes import Box


@dataclass(frozen=True)
class Volume:
    """Voxels and where they are.

    data: the grey values, (channel, x, y, z); of a picture (channel, row, column), in its raster
        order: from the top down, then from left to right
    affine: voxel index to world coordinates in mm, 4×4, RAS+ world as in NIfTI; a picture has none
    label: the label map on the same grid, if the scan has one: indices into the label values
    """

    data: Float[np.ndarray, "channel *space"]
    affine: Float[np.ndarray, "4 4"] | None = None
    label: Float[np.ndarray, "*space"] | None = None

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
    """

    source: str
    subject: str
    covariates: dict[str, Any]
    label: str | None = None
    split: str = ""
    modalities: tuple[str, ...] = ()
    files: tuple[str, ...] = ()


@dataclass(frozen=True)
class Record:
    """One row of the table that is stored with the volumes; all values are plain JSON.

    index: position in the array of volumes
    sha256: of the raw file (of the voxels, for a phantom and for one image of a file of many)
    shape, affine: of the scan as it was read; the affine of a picture is []
    normalised_affine: of the stored volume, or []
    field_of_view: the part of the stored volume that the scan covers; the rest is padding
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
