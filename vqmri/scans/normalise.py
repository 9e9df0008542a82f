"""Scans of any geometry and scale to volumes of one."""

import math
from collections.abc import Sequence
from typing import Any

import nibabel as nib
import numpy as np
from jaxtyping import Bool, Float
from nibabel.affines import from_matvec
from scipy import ndimage

from vqmri.scans.check import Refused
from vqmri.scans.dataset import orientation
from vqmri.scans.volume import Normalised, Steps, Volume, crop, thinned
from vqmri.shapes import Box

ORIENTATION = "RAS"
_SAME_SPACING = 1e-3  # mm²; below 1 mm in the units of `_resampled`
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
        foreground is the mask or, without one, the largest piece above Otsu's threshold; its
        extent in mm is noted
    skull_strip: voxels outside the mask become 0
    Each channel of grey values has a scale of its own. A label map goes the same way with the
    nearest of its values; what is padded is 0, its background.
    Raises Refused when the scan would be beyond memory at this spacing, when both percentiles are
    one intensity, so that there is no scale, when the mask is empty or when float32 cannot hold it;
    ValueError for a picture.
    """
    if scan.affine is None:
        raise ValueError("a picture has no affine; raster.fit makes its shape that of the others")
    _check_extent(scan, spacing)
    data, affine = _resampled(scan.data, scan.affine, spacing, "bilinear")
    mask = None
    if scan.mask is not None:
        mask = _resampled(scan.mask[None], scan.affine, spacing, "nearest")[0][0] > 0.5
    lows, highs = _scales(data, percentiles, mask)
    size = data.shape[1:]
    middle = None
    about: dict[str, Any] = {"about": "scan"}
    if foreground_crop:
        bounds = _bounds(_foreground(data[0], lows[0], highs[0]) if mask is None else mask)
        middle = [(first + end) // 2 for first, end in bounds]
        extent = [(end - first) * mm for (first, end), mm in zip(bounds, spacing, strict=True)]
        about = {"about": "foreground", "extent": extent}
    starts = _starts(size, shape, middle)
    grey = _placed(data, starts, shape)
    inside = (slice(None), *crop(_box(size, starts, shape)))
    for channel, low, high in zip(grey[inside], lows, highs, strict=True):
        _scale(channel, low, high)
    if skull_strip and mask is not None:
        grey *= _placed(mask[None].astype(np.float32), starts, shape)
    _check_scaled(grey)
    label = None
    if scan.label is not None:
        labels, _ = _resampled(scan.label[None], scan.affine, spacing, "nearest")
        label = _placed(labels, starts, shape)[0]
    affine = affine @ from_matvec(np.eye(3), starts)
    steps: Steps = [
        {"step": "orient", "from": orientation(scan.affine), "to": ORIENTATION},
        {"step": "resample", "from": list(scan.spacing), "to": list(map(float, spacing))},
        {"step": "scale", "low": lows, "high": highs, "of": "scan" if mask is None else "mask"},
        *([{"step": "strip"}] if skull_strip else []),
        {"step": "crop", "start": starts, **about},
    ]
    return Normalised(Volume(grey, affine, label), _box(size, starts, shape), steps)


def _turned(
    data: Float[np.ndarray, "channel x y z"], affine: Float[np.ndarray, "4 4"]
) -> tuple[Float[np.ndarray, "channel a b c"], Float[np.ndarray, "4 4"]]:
    """The same voxels with their axes nearest to R, A and S, as a view."""
    turn = nib.io_orientation(affine)
    order = [0, *(1 + int(axis) for axis in np.argsort(turn[:, 0]))]
    flips = tuple(slice(None, None, int(sign)) for sign in turn[:, 1])
    return data[:, *flips].transpose(order), affine @ nib.orientations.inv_ornt_aff(
        turn, data.shape[1:]
    )


def _resampled(
    data: Float[np.ndarray, "channel x y z"],
    affine: Float[np.ndarray, "4 4"],
    spacing: Sequence[float],
    mode: str,
) -> tuple[Float[np.ndarray, "channel a b c"], Float[np.ndarray, "4 4"]]:
    """In RAS, at the spacing; as it is, where it has it already."""
    data, affine = _turned(data, affine)
    # What MONAI and we take for equal is absolute, and would be anything to a scan of 0.05 mm; by
    # a power of two no other bit changes.
    unit = 2.0 ** min(0, math.floor(math.log2(min(spacing))))
    rows = np.array([[unit], [unit], [unit], [1.0]])
    wanted = [size / unit for size in spacing]
    axes = (affine / rows)[:3, :3]
    if np.allclose(axes.T @ axes, np.diag(np.square(wanted)), rtol=0, atol=_SAME_SPACING):
        return data, affine  # at right angles too, which a tilted gantry's are not
    from vqmri.scans.resample import to_spacing

    data, affine = to_spacing(data, affine / rows, wanted, mode)
    return data, affine * rows


def _check_extent(scan: Volume, spacing: Sequence[float]) -> None:
    """Refuse voxels of metres, say of a header in µm, before they are resampled to millimetres."""
    assert scan.affine is not None
    with np.errstate(over="ignore"):
        extent = scan.data.shape[1:] * np.linalg.norm(scan.affine[:3, :3], axis=0)
        voxels = float(np.prod(extent) / np.prod(spacing))
    if voxels > _MAX_RESAMPLED:
        raise Refused("too-large", f"{extent.round(3).tolist()} mm are {voxels:.3g} voxels")


def _scales(
    data: Float[np.ndarray, "channel *space"],
    percentiles: tuple[float, float],
    mask: Bool[np.ndarray, "*space"] | None,
) -> tuple[list[float], list[float]]:
    """For each channel the intensities that become 0 and 1.

    By numpy, of at most a million voxels: MONAI's transform sorts all, in half the time of ingest.
    """
    if mask is not None and not mask.any():
        raise Refused("mask-empty", "no voxel is left of the brain mask")
    few = mask is not None and not thinned(mask).any()
    lows, highs = [], []
    for channel in data:
        if mask is None:
            values = thinned(channel)
        else:
            values = channel[mask] if few else thinned(channel)[thinned(mask)]
        low, high = map(float, np.percentile(values, percentiles))
        if low == high:
            raise Refused("constant", f"percentiles {percentiles} are both {low}")
        lows.append(low)
        highs.append(high)
    return lows, highs


def _scale(values: np.ndarray, low: float, high: float) -> None:
    """In place, clipped: what MONAI's ScaleIntensityRange does in six copies."""
    with np.errstate(over="ignore", invalid="ignore"):  # what float32 cannot hold is refused later
        np.subtract(values, np.float32(low), out=values)
        np.divide(values, np.float32(high - low), out=values)
    np.clip(values, 0, 1, out=values)


def _foreground(
    data: Float[np.ndarray, "x y z"], low: float, high: float
) -> Bool[np.ndarray, "x y z"]:
    """The largest connected piece above the threshold that parts the values best (Otsu 1979)."""
    some = np.clip(thinned(data).astype(np.float64), low, high)
    counts, edges = np.histogram(some, bins=256, range=(low, high))
    values = (edges[1:] + edges[:-1]) / 2
    below, above = np.cumsum(counts)[:-1], np.cumsum(counts[::-1])[::-1][1:]
    sums = np.cumsum(counts * values)
    apart = sums[:-1] / np.maximum(below, 1) - (sums[-1] - sums[:-1]) / np.maximum(above, 1)
    threshold = edges[1 + int(np.argmax(below * above * apart**2))]
    pieces, _ = ndimage.label(data > threshold)
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    return np.asarray(pieces == int(np.argmax(sizes)))


def _bounds(mask: Bool[np.ndarray, "x y z"]) -> list[tuple[int, int]]:
    """Of what is true, along each axis: the first voxel and the one after the last."""
    found = []
    for axis in range(mask.ndim):
        others = tuple(other for other in range(mask.ndim) if other != axis)
        there = np.flatnonzero(mask.any(axis=others))
        found.append((int(there[0]), int(there[-1]) + 1))
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
