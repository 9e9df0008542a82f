"""What is accepted and yet odd, and by which code: a person should look at it."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
from jaxtyping import Float

from vqmri.scans.dataset import Summary
from vqmri.scans.leakage import Fingerprint, thumbnails
from vqmri.scans.volume import Volume

WARNINGS = {
    "forms-disagree": "sform and qform put the voxels in different places; the sform is followed",
    "anisotropic": "the voxels are much longer along one axis than along another",
    "clipped": "many voxels have the very maximum, as if brighter ones had been cut off",
    "outlier": "a summary of the scan is far from those of the other scans of the data set",
}
"""Every code that a doubt can have, and what it means."""

MAX_ANISOTROPY = 3.0
"""Longest side of a voxel over its shortest."""

MAX_AT_MAXIMUM = 0.005
"""Share of the voxels above the minimum that may have the maximum."""

MAX_DEVIATION = 5.0
"""Distance from the median of the data set in 1.4826 · MAD: standard deviations of a normal one."""

MAX_DISPLACEMENT = 1.0
"""Distance in mm between the places that two affines give a corner of the scan."""

_BLOCK = 1024  # scans whose thumbnails are in memory as numbers
_FEWEST = 20  # scans that a median and a spread can be told from
_LEAST_SPREAD = 0.002  # of shares, normalised intensities and correlations: less is rounding


@dataclass(frozen=True)
class Doubt:
    """An odd scan; `code` is one of WARNINGS, or ValueError."""

    source: str
    code: str
    reason: str

    def __post_init__(self) -> None:
        if self.code not in WARNINGS:
            raise ValueError(f"unknown warning {self.code!r}")


def doubts_of_scan(source: str, scan: Volume, summary: Summary) -> list[Doubt]:
    """What is odd about a scan alone, as it was read; nothing is about a picture."""
    if scan.affine is None:
        return []
    found = []
    if reason := _disagreement(scan):
        found.append(Doubt(source, "forms-disagree", reason))
    ratio = max(scan.spacing) / min(scan.spacing)
    if ratio > MAX_ANISOTROPY:
        sides = " × ".join(f"{side:.3g}" for side in scan.spacing)
        found.append(Doubt(source, "anisotropic", f"voxels of {sides} mm"))
    if summary.at_maximum > MAX_AT_MAXIMUM:
        reason = f"{summary.at_maximum:.2%} of the voxels are {summary.quantiles[-1]:g}"
        found.append(Doubt(source, "clipped", reason))
    return found


def _disagreement(scan: Volume) -> str:
    """How the header's two affines disagree, "" where they do not or there are not two."""
    if scan.affine is None or scan.qform is None:
        return ""
    if not np.isfinite(scan.qform).all():
        return "the qform cannot be computed or is not finite"
    distance = displacement(scan.affine, scan.qform, scan.data.shape[1:])
    return f"a corner is {distance:.3g} mm apart" if distance > MAX_DISPLACEMENT else ""


def displacement(
    first: Float[np.ndarray, "4 4"], second: Float[np.ndarray, "4 4"], shape: Sequence[int]
) -> float:
    """Greatest distance in mm between the places that two affines give a corner voxel."""
    corners = np.array([[*corner, 1] for corner in product(*((0, n - 1) for n in shape))])
    apart = (corners @ (first - second).T)[:, :3]
    return float(np.linalg.norm(apart, axis=1).max())


def doubts_of_dataset(
    summaries: Mapping[str, Summary], fingerprints: Mapping[str, Fingerprint]
) -> list[Doubt]:
    """Scans far from the others by a robust z, sorted by source; nothing below twenty scans.

    Both by source. What is compared: share of the foreground, mean and standard deviation of the
    normalised intensities, and the correlation of the thumbnail to the mean thumbnail, of which
    only a low one is odd.
    """
    sources = sorted(summaries)
    if len(sources) < _FEWEST:
        return []
    columns = {
        name: np.array([getattr(summaries[source], name) for source in sources])
        for name in ("foreground", "mean", "std")
    }
    if all(source in fingerprints and fingerprints[source].thumbnail for source in sources):
        columns["likeness"] = likeness([fingerprints[source] for source in sources])
    found = []
    for name, values in columns.items():
        for number, z in enumerate(robust_z(values)):
            if abs(z) > MAX_DEVIATION and not (name == "likeness" and z > 0):
                reason = f"{name} {values[number]:.3g}, median {np.median(values):.3g}, z {z:.1f}"
                found.append(Doubt(sources[number], "outlier", reason))
    return sorted(found, key=lambda doubt: doubt.source)


def robust_z(values: Float[np.ndarray, "scan"]) -> Float[np.ndarray, "scan"]:
    """Distance from the median in 1.4826 · MAD, which is at least what rounding makes."""
    apart = values - np.median(values)
    spread = 1.4826 * np.median(np.abs(apart))
    return apart / max(float(spread), _LEAST_SPREAD)


def likeness(fingerprints: Sequence[Fingerprint]) -> Float[np.ndarray, "scan"]:
    """Correlation of each thumbnail to the mean of all; higher is more usual.

    Block by block: as float32, all of 40,000 scans would take gigabytes.
    """
    total = sum(rows.sum(axis=0, dtype=np.float64) for rows in _blocks(fingerprints))
    usual = (total / max(float(np.linalg.norm(total)), 1e-12)).astype(np.float32)
    return np.concatenate([rows @ usual for rows in _blocks(fingerprints)])


def _blocks(fingerprints: Sequence[Fingerprint]) -> Iterator[np.ndarray]:
    """Thumbnails, (scan, cell), of some scans after the others."""
    for start in range(0, len(fingerprints), _BLOCK):
        yield thumbnails(fingerprints[start : start + _BLOCK])
