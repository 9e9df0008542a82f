"""Scans of any geometry and scale to volumes of one."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from monai.data.meta_tensor import MetaTensor
from monai.transforms import (
    Orientation,
    ResizeWithPadOrCrop,
    ScaleIntensityRangePercentiles,
    Spacing,
)

from vqmri.scans.check import Refused
from vqmri.scans.volume import Volume
from vqmri.shapes import Box

ORIENTATION = "RAS"


def normalise(
    volume: Volume,
    *,
    spacing: Sequence[float],
    shape: Sequence[int],
    percentiles: tuple[float, float],
) -> tuple[Volume, Box]:
    """Turn to RAS, resample, scale intensities to [0, 1], crop or pad about the centre.

    spacing: mm; shape: voxels; percentiles: intensities that become 0 and 1, the rest is clipped.
    Returns the volume and its field of view: the voxels that the scan covers, the rest is padding.
    Raises Refused when both percentiles are one intensity, so that there is no scale.
    """
    image: Any = MetaTensor(torch.from_numpy(volume.data), affine=torch.from_numpy(volume.affine))
    image = Orientation(axcodes=ORIENTATION, labels=None)(image)
    image = Spacing(pixdim=tuple(spacing), mode="bilinear", padding_mode="border")(image)
    low, high = np.percentile(image.numpy(), percentiles)
    if low == high:  # MONAI would only warn, and leave the intensities as they are
        raise Refused("constant", f"percentiles {percentiles} are both {float(low)}")
    image = ScaleIntensityRangePercentiles(*percentiles, 0.0, 1.0, clip=True)(image)
    placed: Any = ResizeWithPadOrCrop(spatial_size=tuple(shape))(image)
    box = _field_of_view(image.affine, image.shape[1:], placed.affine, shape)
    affine = placed.affine.numpy().astype(np.float64)
    return Volume(placed.numpy().astype(np.float32, copy=False), affine), box


def _field_of_view(
    before: torch.Tensor, size: Sequence[int], after: torch.Tensor, shape: Sequence[int]
) -> Box:
    """Where a volume of `size` voxels lies in the array that it was cropped or padded into."""
    origin = torch.linalg.solve(after, before[:, 3])[:3]
    starts = [round(float(o)) for o in origin]
    return tuple(
        (max(start, 0), min(start + n, m)) for start, n, m in zip(starts, size, shape, strict=True)
    )
