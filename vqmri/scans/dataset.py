"""What a data set is: the numbers of `dataset.json`."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import nibabel as nib
import numpy as np
from jaxtyping import Float

from vqmri.scans.volume import Record, Volume, crop, thinned
from vqmri.shapes import Box

QUANTILES = (0.0, 0.01, 0.25, 0.5, 0.75, 0.99, 1.0)
"""Of the raw intensities of a scan."""

FOREGROUND = 0.05
"""Normalised intensities above this are foreground."""

_FOR_PEOPLE = 2**16  # voxels that quantiles are taken of which nothing depends on
_DIGITS = 6  # significant ones; more would be the noise of the machine


@dataclass(frozen=True)
class Summary:
    """A few numbers of the first channel of one scan; plain JSON.

    quantiles: intensities as they were read, at QUANTILES
    at_maximum: share of the raw voxels above the minimum that have the very maximum
    foreground: share of the field of view whose normalised intensity is above FOREGROUND
    mean, std: normalised intensities in the field of view
    """

    quantiles: list[float]
    at_maximum: float
    foreground: float
    mean: float
    std: float


def summarise(scan: Volume, normalised: Volume, box: Box) -> Summary:
    """Of a scan as it was read, and of the normalised volume with its field of view."""
    raw, inside = scan.data[0], thinned(normalised.data[0][crop(box)])
    least, most = float(raw.min()), float(raw.max())
    quantiles = [least, *np.quantile(thinned(raw, _FOR_PEOPLE), QUANTILES[1:-1]), most]
    above = np.count_nonzero(raw > least)
    return Summary(
        quantiles=[_rounded(quantile) for quantile in quantiles],
        at_maximum=_rounded(np.count_nonzero(raw == most) / above if above else 1.0),
        foreground=_rounded((inside > FOREGROUND).mean()),
        mean=_rounded(inside.mean(dtype=np.float64)),
        std=_rounded(inside.std(dtype=np.float64)),
    )


def describe(records: Sequence[Record], summaries: Mapping[str, Summary]) -> dict[str, Any]:
    """The content of `dataset.json`, in plain values; neither order nor machine changes it.

    summaries: by source; of those that are there. Lengths are in mm.
    """
    records = sorted(records, key=lambda record: record.source)
    given = [summaries[record.source] for record in records if record.source in summaries]
    return {
        "splits": {
            split: size([record for record in records if record.split == split])
            for split in sorted({record.split for record in records})
        },
        **size(records),
        "raw": _raw(records),
        "intensities": {
            f"quantile_{quantile:g}": _spread([summary.quantiles[i] for summary in given])
            for i, quantile in enumerate(QUANTILES)
        },
        "normalised": {
            name: _spread([getattr(summary, name) for summary in given])
            for name in ("foreground", "mean", "std")
        },
        "covariates": covariates(records),
    }


def covariates(records: Sequence[Record]) -> dict[str, dict[str, Any]]:
    """What is known of the subjects: name to spread or counts, and how often it is missing."""
    names = sorted({name for record in records for name in record.covariates})
    return {name: _covariate([r.covariates.get(name) for r in records]) for name in names}


def size(records: Sequence[Record]) -> dict[str, int]:
    """How many scans, and of how many subjects."""
    return {"scans": len(records), "subjects": len({record.subject for record in records})}


def _raw(records: Sequence[Record]) -> dict[str, Any]:
    """Geometry of the scans as they were read; a picture has a shape alone."""
    affines = [np.array(record.affine) for record in records if record.affine]
    spacings = [[_rounded(s, 4) for s in np.linalg.norm(a[:3, :3], axis=0)] for a in affines]
    shapes = [record.shape for record in records]
    axes = max(map(len, shapes), default=0)
    return {
        "shapes": _counts("×".join(map(str, shape)) for shape in shapes),
        "voxels_per_axis": [
            _spread([shape[axis] for shape in shapes if axis < len(shape)]) for axis in range(axes)
        ],
        "spacings": _counts("×".join(f"{s:g}" for s in spacing) for spacing in spacings),
        "spacing_per_axis": [_spread(list(column)) for column in zip(*spacings, strict=True)],
        **_turned(records),
        "orientations": _counts(orientation(affine) for affine in affines),
    }


def _turned(records: Sequence[Record]) -> dict[str, Any]:
    """Spacing and extent in mm along x, y and z of RAS, each that of the scan's nearest axis.

    The foreground's extent too, of the scans that are cropped about it. Extents have a further
    `p95`: volumes that cover as much cut off few scans.
    """
    pairs = [_along_ras(record) for record in records if record.affine]
    spacings, extents = ([pair[i] for pair in pairs] for i in range(2))
    crops = [step for record in records for step in record.steps if step["step"] == "crop"]
    return {
        "ras_spacing": [_spread(list(column)) for column in zip(*spacings, strict=True)],
        "ras_extent": _covering(extents),
        "foreground_extent": _covering([step["extent"] for step in crops if "extent" in step]),
    }


def _covering(extents: Sequence[Sequence[float]]) -> list[dict[str, Any]]:
    """The spread along each axis, [] of none."""
    return [
        _spread(list(column)) | {"p95": _rounded(np.quantile(column, 0.95))}
        for column in zip(*extents, strict=True)
    ]


def _along_ras(record: Record) -> tuple[list[float], list[float]]:
    affine = np.array(record.affine)
    sizes = np.linalg.norm(affine[:3, :3], axis=0)
    nearest = ["LPSRAI".index(letter) % 3 for letter in orientation(affine)]
    axes = sorted(range(3), key=lambda axis: nearest[axis])
    return (
        [_rounded(sizes[axis], 4) for axis in axes],
        [_rounded(sizes[axis] * record.shape[axis]) for axis in axes],
    )


def orientation(affine: Float[np.ndarray, "4 4"]) -> str:
    """Where the axes of an array point, for example "LAS"."""
    return _orientation(np.ascontiguousarray(affine[:3, :3], dtype=np.float64).tobytes())


@lru_cache(maxsize=1024)
def _orientation(matrix: bytes) -> str:
    """Of the bytes of a matrix: most scans of a data set have one of a few."""
    turned = np.eye(4)
    turned[:3, :3] = np.frombuffer(matrix).reshape(3, 3)
    return "".join(axis or "?" for axis in nib.aff2axcodes(turned))


def _covariate(values: Sequence[Any]) -> dict[str, Any]:
    """Numbers by their spread, anything else by its counts. NaN is missing."""
    there = [v for v in values if v is not None and not (isinstance(v, float) and math.isnan(v))]
    missing = {"missing": len(values) - len(there)}
    if there and all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in there):
        return _spread(there) | missing
    return {"counts": _counts(map(str, there))} | missing


def _counts(names: Iterable[str]) -> dict[str, int]:
    """The most frequent first, equals by name."""
    return dict(sorted(Counter(names).items(), key=lambda pair: (-pair[1], pair[0])))


def _spread(values: Sequence[float]) -> dict[str, float]:
    """Least, quartiles and most; {} of no values."""
    if not values:
        return {}
    names = ("min", "q1", "median", "q3", "max")
    quartiles = np.quantile(np.asarray(values, dtype=np.float64), (0, 0.25, 0.5, 0.75, 1))
    return {name: _rounded(value) for name, value in zip(names, quartiles, strict=True)}


def _rounded(value: Any, digits: int = _DIGITS) -> float:
    return float(f"{float(value):.{digits}g}")
