"""Plain statistics of single volumes, which samples should have in the same ranges as real ones.

What has no value, such as the symmetry of a flat volume, is NaN. Grey statistics are of the first
channel.
"""

import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float

from vqmri.evaluation.distances import jensen_shannon
from vqmri.scans.dataset import FOREGROUND

Volume = Float[np.ndarray, "channel *space"]

HIGH_FREQUENCY = 0.25
"""Cycles per voxel: half of what a grid can hold along an axis."""

_BINS = 64


def foreground(volume: Volume) -> Bool[np.ndarray, "*space"]:
    """The voxels whose intensity is above FOREGROUND."""
    return volume[0] > FOREGROUND


def amount(inside: Bool[np.ndarray, "*space"], spacing: Sequence[float]) -> float:
    """The volume of a mask in cm³; of a picture, which has no spacing, its share of all pixels."""
    return float(inside.sum() * math.prod(spacing) / 1000 if spacing else inside.mean())


def symmetry(volume: Volume) -> float:
    """Correlation of a 3D volume with its mirror image along x, left to right; at most 1."""
    grey = volume[0].astype(np.float64)
    if grey.max() == grey.min():
        return float("nan")
    return float(np.corrcoef(grey.ravel(), grey[::-1].ravel())[0, 1])


def high_frequency_share(volume: Volume) -> float:
    """Share of the variance above HIGH_FREQUENCY cycles per voxel, 0 to 1; blur lowers it."""
    frequency, power = _spectrum(volume)
    total = power.sum()
    return float(power[frequency > HIGH_FREQUENCY].sum() / total) if total > 0 else float("nan")


def spectral_slope(volume: Volume) -> float:
    """Slope of log power over log frequency, negative; steeper is more blurred.

    Least squares over rings as wide as the lowest frequency of the smallest side, up to half a
    cycle per voxel; a ring's power is its mean.
    """
    frequency, power = _spectrum(volume)
    side = min(volume.shape[1:])
    ring = np.rint(frequency * side).astype(np.int64)
    counts, sums = np.bincount(ring), np.bincount(ring, weights=power)
    rings = np.arange(1, side // 2 + 1)
    rings = rings[sums[rings] > 0]
    if len(rings) < 2:
        return float("nan")
    return float(np.polyfit(np.log(rings), np.log(sums[rings] / counts[rings]), 1)[0])


def describe(
    volumes: Float[np.ndarray, "item channel *space"],
    spacing: Sequence[float],
    num_classes: int = 0,
) -> dict[str, Float[np.ndarray, " item"]]:
    """Every statistic of every volume, by its name; amounts end in their unit, cm³ or share.

    spacing: mm per axis, () for pictures
    num_classes: of the label map that is the last channel; 0 when there is none
    """
    unit = "cm3" if spacing else "share"
    rows = []
    for volume in volumes:
        inside = foreground(volume)
        grey = volume[0][inside].astype(np.float64)
        row = {
            f"foreground_{unit}": amount(inside, spacing),
            "foreground_mean": float(grey.mean()) if len(grey) else float("nan"),
            "foreground_std": float(grey.std()) if len(grey) else float("nan"),
            "high_frequency_share": high_frequency_share(volume),
            "spectral_slope": spectral_slope(volume),
        }
        if volume.ndim == 4:
            row["symmetry"] = symmetry(volume)
        for label in range(1, num_classes):
            row[f"label_{label}_{unit}"] = amount(volume[-1] == label, spacing)
        rows.append(row)
    names = rows[0] if rows else {}
    return {name: np.array([row[name] for row in rows]) for name in names}


def histogram_distance(a: Float[np.ndarray, "..."], b: Float[np.ndarray, "..."]) -> float:
    """Jensen–Shannon divergence (Lin 1991) of two sets' intensities, 0 to 1 bit; lower is better.

    Of all their voxels together in 64 equal bins from 0 to 1; those beyond count in the outermost.
    NaN for an empty set.
    """
    if min(a.size, b.size) == 0:
        return float("nan")
    p, q = (np.histogram(x.clip(0, 1), _BINS, (0, 1))[0] / x.size for x in (a, b))
    return jensen_shannon(p, q)


def ks_distance(a: Float[np.ndarray, " a"], b: Float[np.ndarray, " b"]) -> float:
    """Two-sample Kolmogorov–Smirnov distance max |Fa − Fb|, 0 to 1; lower is better.

    NaN values are left out; NaN when a set has no others.
    """
    a, b = np.sort(a[~np.isnan(a)]), np.sort(b[~np.isnan(b)])
    if min(len(a), len(b)) == 0:
        return float("nan")
    both = np.concatenate([a, b])
    shares = [np.searchsorted(x, both, side="right") / len(x) for x in (a, b)]
    return float(np.abs(shares[0] - shares[1]).max())


def _spectrum(
    volume: Volume,
) -> tuple[Float[np.ndarray, " wave"], Float[np.ndarray, " wave"]]:
    """|f| in cycles per voxel and power of every wave of the first channel but the constant."""
    grey = volume[0].astype(np.float64)
    if grey.max() == grey.min():  # exactly none, where rounding would leave some
        power = np.zeros(grey.shape)
    else:
        power = np.square(np.abs(np.fft.fftn(grey)))
    axes = np.meshgrid(*(np.fft.fftfreq(n) for n in grey.shape), indexing="ij", sparse=True)
    frequency = np.sqrt(sum(np.square(axis) for axis in axes))
    return frequency.ravel()[1:], power.ravel()[1:]
