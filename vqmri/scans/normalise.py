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
_MAX_RESAMPLED = 2**28
"""Voxels on the way to the spacing: 645³. MONAI takes 56 bytes for each, together 15 GB."""


def normalise(
    volume: Volume,
    *,
    spacing: Sequence[float],
    shape: Sequence[int],
    percentiles: tuple[float, float],
) -> tuple[Volume, Box]:
    """Turn to RAS, resample, scale intensities to [0, 1], crop or pad about the centre.

    spacing: mm; shape: voxels; percentiles: intensities that become 0 and 1, the rest is clipped.
    Each channel of grey values has a scale of its own. A label map goes the same way with the
    nearest of its values; what is padded is 0, its background.
    Returns the volume and its field of view: the voxels that the scan covers, the rest is padding.
    Raises Refused when the scan would be beyond memory at this spacing, when both percentiles are
    one intensity, so that there is no scale, or when float32 cannot hold it.
    """
    image: Any = _resample(volume.data, volume.affine, spacing, "bilinear")
    for channel in image.numpy():
        low, high = np.percentile(channel, percentiles)
        if low == high:  # MONAI would only warn, and leave the intensities as they are
            raise Refused("constant", f"percentiles {percentiles} are both {float(low)}")
    scale = ScaleIntensityRangePercentiles(*percentiles, 0.0, 1.0, clip=True, channel_wise=True)
    image = scale(image)
    place = ResizeWithPadOrCrop(spatial_size=tuple(shape))
    placed: Any = place(image)
    box = _field_of_view(image.affine, image.shape[1:], placed.affine, shape)
    data = placed.numpy().astype(np.float32, copy=False)
    _check_scaled(data)
    label = None
    if volume.label is not None:
        label = place(_resample(volume.label[None], volume.affine, spacing, "nearest")).numpy()[0]
    return Volume(data, placed.affine.numpy().astype(np.float64), label), box


def _resample(
    data: np.ndarray, affine: np.ndarray | None, spacing: Sequence[float], mode: str
) -> Any:
    """In RAS, at the spacing."""
    if affine is None:
        raise ValueError("a picture has no affine; raster.fit makes its shape that of the others")
    _check_extent(data.shape[1:], affine, spacing)
    image: Any = MetaTensor(torch.from_numpy(data), affine=torch.from_numpy(affine))
    image = Orientation(axcodes=ORIENTATION, labels=None)(image)
    return Spacing(pixdim=tuple(spacing), mode=mode, padding_mode="border")(image)


def _check_extent(shape: Sequence[int], affine: np.ndarray, spacing: Sequence[float]) -> None:
    """Refuse voxels of metres, say of a header in µm, before they are resampled to millimetres."""
    with np.errstate(over="ignore"):
        extent = np.array(shape) * np.linalg.norm(affine[:3, :3], axis=0)
        voxels = float(np.prod(np.maximum(extent / spacing, 1)))
    if voxels > _MAX_RESAMPLED:
        raise Refused("too-large", f"{extent.round(3).tolist()} mm are {voxels:.3g} voxels")


def _check_scaled(data: np.ndarray) -> None:
    if not np.isfinite(data).all():
        raise Refused("not-finite", "intensities are beyond what float32 can scale")
    if any(channel.min() == channel.max() for channel in data):
        raise Refused("constant", "every voxel is the same after intensity scaling")


def _field_of_view(
    before: torch.Tensor, size: Sequence[int], after: torch.Tensor, shape: Sequence[int]
) -> Box:
    """Where a volume of `size` voxels lies in the array that it was cropped or padded into."""
    origin = torch.linalg.solve(after, before[:, 3])[:3]
    starts = [round(float(o)) for o in origin]
    return tuple(
        (max(start, 0), min(start + n, m)) for start, n, m in zip(starts, size, shape, strict=True)
    )
