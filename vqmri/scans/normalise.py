"""Scans of any geometry and scale to volumes of one."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from monai.data.meta_tensor import MetaTensor
from monai.transforms import Orientation, ScaleIntensityRange, Spacing
from scipy import ndimage

from vqmri.scans.check import Refused
from vqmri.scans.dataset import orientation
from vqmri.scans.volume import Normalised, Steps, Volume
from vqmri.shapes import Box

ORIENTATION = "RAS"
_MAX_RESAMPLED = 2**28
"""Voxels on the way to the spacing: 645³. MONAI takes 56 bytes for each, together 15 GB."""


def normalise(
    scan: Volume,
    *,
    spacing: Sequence[float],
    shape: Sequence[int],
    percentiles: tuple[float, float],
    foreground_crop: bool = False,
    skull_strip: bool = False,
) -> Normalised:
    """Turn to RAS, resample, scale intensities to [0, 1], crop or pad to the shape.

    spacing: mm; shape: voxels; percentiles: intensities that become 0 and 1, the rest is clipped;
        inside the brain mask alone if the scan has one
    foreground_crop: the middle of the foreground, not that of the scan, comes to the middle. The
        foreground is the mask or, without one, the largest piece above Otsu's threshold
    skull_strip: voxels outside the mask become 0
    Each channel of grey values has a scale of its own. A label map goes the same way with the
    nearest of its values; what is padded is 0, its background.
    Raises Refused when the scan would be beyond memory at this spacing, when both percentiles are
    one intensity, so that there is no scale, when the mask is empty or when float32 cannot hold it.
    """
    if scan.affine is None:
        raise ValueError("a picture has no affine; raster.fit makes its shape that of the others")
    image = _resample(scan.data, scan.affine, spacing, "bilinear")
    mask = None
    if scan.mask is not None:
        mask = _resample(scan.mask[None], scan.affine, spacing, "nearest").numpy()[0] > 0.5
    grey, low, high = _scaled(image, percentiles, mask)
    if skull_strip and mask is not None:
        grey = np.where(mask, grey, np.float32(0))
    middle = _middle(_foreground(grey[0]) if mask is None else mask) if foreground_crop else None
    starts = _starts(grey.shape[1:], shape, middle)
    data = _placed(grey, starts, shape)
    _check_scaled(data)
    label = None
    if scan.label is not None:
        turned = _resample(scan.label[None], scan.affine, spacing, "nearest")
        label = _placed(turned.numpy(), starts, shape)[0]
    affine = image.affine.numpy().astype(np.float64)
    affine[:3, 3] += affine[:3, :3] @ starts
    steps: Steps = [
        {"step": "orient", "from": orientation(scan.affine), "to": ORIENTATION},
        {"step": "resample", "from": list(scan.spacing), "to": list(map(float, spacing))},
        {"step": "scale", "low": low, "high": high, "of": "scan" if mask is None else "mask"},
        *([{"step": "strip"}] if skull_strip else []),
        {"step": "crop", "start": starts, "about": "foreground" if foreground_crop else "scan"},
    ]
    return Normalised(Volume(data, affine, label), _box(grey.shape[1:], starts, shape), steps)


def _resample(data: np.ndarray, affine: np.ndarray, spacing: Sequence[float], mode: str) -> Any:
    """In RAS, at the spacing."""
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


def _scaled(
    image: Any, percentiles: tuple[float, float], mask: Bool[np.ndarray, "*space"] | None
) -> tuple[Float[np.ndarray, "channel *space"], list[float], list[float]]:
    """Grey values in [0, 1], and for each channel the intensities that became 0 and 1.

    numpy selects the percentiles: MONAI's transform has torch sort, six times slower.
    """
    if mask is not None and not mask.any():
        raise Refused("mask-empty", "no voxel is left of the brain mask")
    grey: list[np.ndarray] = []
    lows, highs = [], []
    for channel in image.as_tensor():
        values = channel.numpy() if mask is None else channel.numpy()[mask]
        low, high = map(float, np.percentile(values, percentiles))
        if low == high:  # MONAI would only warn, and leave the intensities as they are
            raise Refused("constant", f"percentiles {percentiles} are both {low}")
        scaled: Any = ScaleIntensityRange(low, high, 0.0, 1.0, clip=True)(channel)
        grey.append(scaled.numpy().astype(np.float32, copy=False))
        lows.append(low)
        highs.append(high)
    return np.stack(grey), lows, highs


def _foreground(grey: Float[np.ndarray, "x y z"]) -> Bool[np.ndarray, "x y z"]:
    """The largest connected piece above the threshold that parts the values best (Otsu 1979)."""
    counts, edges = np.histogram(grey, bins=256, range=(0, 1))
    values = (edges[1:] + edges[:-1]) / 2
    below, above = np.cumsum(counts)[:-1], np.cumsum(counts[::-1])[::-1][1:]
    sums = np.cumsum(counts * values)
    apart = sums[:-1] / np.maximum(below, 1) - (sums[-1] - sums[:-1]) / np.maximum(above, 1)
    threshold = edges[1 + int(np.argmax(below * above * apart**2))]
    pieces, _ = ndimage.label(grey > threshold)
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    return np.asarray(pieces == int(np.argmax(sizes)))


def _middle(mask: Bool[np.ndarray, "x y z"]) -> list[int]:
    """Of the box about what is true, in voxels."""
    found = []
    for axis in range(mask.ndim):
        others = tuple(other for other in range(mask.ndim) if other != axis)
        there = np.flatnonzero(mask.any(axis=others))
        found.append(int(there[0] + there[-1] + 1) // 2)
    return found


def _starts(size: Sequence[int], shape: Sequence[int], middle: Sequence[int] | None) -> list[int]:
    """The voxel that becomes the first along each axis; below 0 where there will be padding."""
    if middle is not None:
        return [m - wanted // 2 for m, wanted in zip(middle, shape, strict=True)]
    return [
        n // 2 - wanted // 2 if n > wanted else -((wanted - n) // 2)
        for n, wanted in zip(size, shape, strict=True)
    ]


def _box(size: Sequence[int], starts: Sequence[int], shape: Sequence[int]) -> Box:
    return tuple(
        (max(-start, 0), min(n - start, wanted))
        for n, start, wanted in zip(size, starts, shape, strict=True)
    )


def _placed(
    data: Float[np.ndarray, "channel x y z"], starts: Sequence[int], shape: Sequence[int]
) -> Float[np.ndarray, "channel a b c"]:
    """A window of the data; 0 where it reaches beyond."""
    found = np.zeros((len(data), *shape), dtype=np.float32)
    box = _box(data.shape[1:], starts, shape)
    part = [slice(a + s, b + s) for (a, b), s in zip(box, starts, strict=True)]
    found[:, *(slice(a, b) for a, b in box)] = data[:, *part]
    return found


def _check_scaled(data: np.ndarray) -> None:
    if not np.isfinite(data).all():
        raise Refused("not-finite", "intensities are beyond what float32 can scale")
    if any(channel.min() == channel.max() for channel in data):
        raise Refused("constant", "every voxel is the same after intensity scaling")
