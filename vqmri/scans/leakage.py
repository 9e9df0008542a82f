"""The same scan twice: under two names, resampled, or a person's rescan under another label.

A fingerprint holds the hash of the voxels and a thumbnail. The thumbnail is a grid of cells about
the centre of mass of the normalised volume, so that it moves with the head, and each cell is its
mean less that of its neighbourhood, so that it tells the folds of one brain from another's and not
brains from air. Two thumbnails are compared by their correlation.

What is near is decided by the data set, by the median and the spread of the correlations of its
pairs on Fisher's scale, z = artanh ρ (Fisher 1921), between two bounds that were measured on
brains. Another crop of a scan, a turn of 5° and more, and a mirror image are not found.
"""

import hashlib
from base64 import b64decode, b64encode
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Literal

import numpy as np
from isal import isal_zlib
from jaxtyping import Float

from vqmri.scans.volume import Volume, thinned
from vqmri.shapes import Box

Kind = Literal["same-voxels", "near-duplicate"]
KINDS = {
    "same-voxels": "the same array of values, whatever the names, the files and the affines",
    "near-duplicate": "scans so alike, of two subjects, that they seem to be of one person",
}
"""Every kind of pair, and what it means."""

CELLS = 24
"""Cells along the longest axis of the normalised volume; the other axes have cells of this size."""

LEAST, MOST = 0.86, 0.975
"""Bounds of the correlation from which on a pair is near. Of 700 pairs of different brains none was
above 0.79; four rescans were at 0.89 to 0.97, and copies with noise, resampled, at 0.94 to 1."""

_BLUR = 0.7  # of the neighbourhood: standard deviation in cells
_CALIBRATION = 1000  # scans whose pairs show what is usual
_BLOCK = 1024  # scans in one matrix product
_FALSE_ALARMS = 0.5  # expected in a whole data set, were z of a normal distribution


@dataclass(frozen=True)
class Fingerprint:
    """What is kept of a scan to find it again; plain JSON.

    voxels: sha256 of the shape, of the CRC-32 of all values of the scan as it was read, as float32,
        and of an even lattice of up to a million of them
    thumbnail: base64 of one signed byte per cell, some 14 kB; "" for a picture
    """

    voxels: str
    thumbnail: str = ""


@dataclass(frozen=True)
class Pair:
    """Two sources that are one scan, or seem to be, in the order of their names.

    correlation: of the thumbnails; 1 for the same voxels
    leaks: one is trained on and the other is held out
    """

    first: str
    second: str
    kind: Kind
    correlation: float
    leaks: bool


def fingerprint(scan: Volume, normalised: Volume, box: Box) -> Fingerprint:
    """Of a scan as it was read, and of the normalised volume with its field of view."""
    # x runs fastest, as in the file, so that no copy turns them; + 0 makes -0 into 0
    values = np.ascontiguousarray(scan.data.T + np.float32(0), dtype="<f4")
    digest = hashlib.sha256(f"{scan.data.shape} {isal_zlib.crc32(values.data)}".encode())
    digest.update(np.ascontiguousarray(thinned(values)).data)
    voxels = digest.hexdigest()
    if normalised.affine is None:
        return Fingerprint(voxels)
    cells = _thumbnail(normalised.data[0], normalised.spacing, box)
    scaled = np.rint(127 * cells / max(float(np.abs(cells).max()), 1e-12)).astype(np.int8)
    return Fingerprint(voxels, b64encode(scaled.tobytes()).decode())


def _thumbnail(
    data: Float[np.ndarray, "*space"], spacing: Sequence[float], box: Box
) -> Float[np.ndarray, "*cells"]:
    """Band-passed cells about the centre of mass; what is outside `box` counts for nothing."""
    extent = np.multiply(data.shape, spacing)
    size = extent.max() / CELLS / np.asarray(spacing)  # of a cell, in voxels of each axis
    counts = np.ceil(np.asarray(data.shape) / size - 1e-3).astype(int).tolist()
    inside = data[tuple(slice(start, stop) for start, stop in box)]
    overlaps = [
        _overlap(np.arange(start, stop), centre, number, width)
        for (start, stop), centre, number, width in zip(
            box, _centre_of_mass(inside, box), counts, size, strict=True
        )
    ]
    blurs = [_blur(number) for number in counts]
    sums = _along(inside, overlaps)
    cover = _along(
        np.ones([1] * inside.ndim), [overlap.sum(axis=1)[:, None] for overlap in overlaps]
    )
    seen = cover > 0.5
    around = _along(sums, blurs) / np.maximum(_along(cover, blurs), 1e-6)
    cells = np.where(seen, sums / np.maximum(cover, 0.5) - around, 0)
    return np.where(seen, cells - cells[seen].mean() if seen.any() else 0.0, 0.0)


def _centre_of_mass(inside: np.ndarray, box: Box) -> list[float]:
    """Of the intensities, in voxels of the whole volume, whose first begins at 0."""
    plane, first = inside.sum(axis=0), inside.reshape(len(inside), -1).sum(axis=1)
    masses = [first, *(plane.sum(axis=axis) for axis in (1, 0))]
    centres = []
    for mass, (start, stop) in zip(masses, box, strict=True):
        middle = np.arange(start, stop) + 0.5
        total = mass.sum()
        centres.append(float((middle * mass).sum() / total if total > 0 else middle.mean()))
    return centres


def _overlap(voxels: np.ndarray, centre: float, number: int, width: float) -> np.ndarray:
    """Share of each cell (row) that each voxel (column) fills; the cells lie about `centre`."""
    edges = centre + (np.arange(number + 1) - number / 2) * width
    stop = np.minimum(edges[1:, None], voxels + 1)
    start = np.maximum(edges[:-1, None], voxels)
    return (np.clip(stop - start, 0, None) / width).astype(np.float32)


def _blur(number: int) -> np.ndarray:
    distance = np.subtract.outer(np.arange(number), np.arange(number))
    return np.exp(-0.5 * (distance / _BLUR) ** 2)


def _along(array: np.ndarray, matrices: Sequence[np.ndarray]) -> np.ndarray:
    """One matrix along each axis."""
    for axis, matrix in enumerate(matrices):
        array = np.moveaxis(np.tensordot(matrix, array, (1, axis)), 0, axis)
    return array


def thumbnails(fingerprints: Iterable[Fingerprint]) -> Float[np.ndarray, "scan cell"]:
    """Of several scans of one data set, each of length 1, so that a product is a correlation."""
    return _unit(_stored([fingerprint.thumbnail for fingerprint in fingerprints]))


def _stored(texts: Sequence[str]) -> np.ndarray:
    """(scan, cell), int8: a quarter of the memory."""
    if len({len(text) for text in texts}) > 1:
        raise ValueError("thumbnails of one data set have one size")
    return np.stack([np.frombuffer(b64decode(text), dtype=np.int8) for text in texts])


def _unit(stored: np.ndarray) -> Float[np.ndarray, "scan cell"]:
    rows = stored.astype(np.float32)
    return rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)


def near_duplicates(
    fingerprints: Mapping[str, Fingerprint],
    subjects: Mapping[str, str],
    splits: Mapping[str, str],
    *,
    limit: int = 1000,
) -> list[Pair]:
    """Pairs that are one scan or seem to be, those that leak first, then by their correlation.

    All arguments by source. Scans of one subject are expected to be alike and stand on one side:
    of them only those with the same voxels are named. Of three equal files two pairs are named.
    limit: near duplicates that are named at most, the nearest; a data set of phantoms has many
    Memory: a byte per cell and scan, 0.4 GB for 40,000 scans; time grows with the square.
    """
    same = list(_same_voxels(fingerprints))
    sources = sorted(source for source, one in fingerprints.items() if one.thumbnail)
    found = [(first, second, 1.0) for first, second in same]
    if len(sources) > 1:
        found += _near(sources, fingerprints, subjects, limit)
    pairs = [
        Pair(
            first,
            second,
            "same-voxels" if number < len(same) else "near-duplicate",
            round(correlation, 4),
            splits[first] != splits[second],
        )
        for number, (first, second, correlation) in enumerate(found)
    ]
    return sorted(pairs, key=lambda p: (not p.leaks, -p.correlation, p.kind, p.first, p.second))


def _same_voxels(fingerprints: Mapping[str, Fingerprint]) -> Iterator[tuple[str, str]]:
    """The first source of each hash with each of the others."""
    groups: dict[str, list[str]] = defaultdict(list)
    for source in sorted(fingerprints):
        groups[fingerprints[source].voxels].append(source)
    for first, *others in groups.values():
        yield from ((first, other) for other in others)


def _near(
    sources: Sequence[str],
    fingerprints: Mapping[str, Fingerprint],
    subjects: Mapping[str, str],
    limit: int,
) -> list[tuple[str, str, float]]:
    """The nearest pairs of different subjects and voxels, at most `limit`."""
    stored = _stored([fingerprints[source].thumbnail for source in sources])
    people = _numbers([subjects[source] for source in sources])
    voxels = _numbers([fingerprints[source].voxels for source in sources])
    least = threshold(stored, people)
    best = np.empty((0, 3))
    for rows, columns, correlations in _blocks(stored):
        other = people[rows, None] != people[None, columns]
        other &= voxels[rows, None] != voxels[None, columns]
        i, j = np.nonzero(other & (correlations >= least))
        i, j, values = rows.start + i, columns.start + j, correlations[i, j]
        fresh = np.column_stack([i, j, values])[i < j]
        best = np.concatenate([best, fresh])
        best = best[np.argsort(-best[:, 2], kind="stable")[:limit]]
    return [(sources[int(i)], sources[int(j)], float(value)) for i, j, value in best]


def _numbers(names: Sequence[str]) -> np.ndarray:
    return np.unique(np.array(names), return_inverse=True)[1]


def _blocks(stored: np.ndarray) -> Iterator[tuple[slice, slice, np.ndarray]]:
    """Correlations of all scans with all, block by block, on and above the diagonal."""
    starts = range(0, len(stored), _BLOCK)
    for row in starts:
        rows = slice(row, min(row + _BLOCK, len(stored)))
        left = _unit(stored[rows])
        for column in starts[row // _BLOCK :]:
            columns = slice(column, min(column + _BLOCK, len(stored)))
            yield rows, columns, left @ _unit(stored[columns]).T


def threshold(stored: np.ndarray, people: np.ndarray) -> float:
    """The correlation from which on two scans are near.

    median z + k · 1.4826 · MAD of the pairs of different people, within LEAST and MOST; k is such
    that of as many normally distributed pairs as the data set has 0.5 would be above. LEAST where
    all scans are of one person.
    stored: thumbnails, (scan, cell); people: a number per scan, equal for one person
    """
    count = len(stored)
    some = np.linspace(0, count - 1, min(count, _CALIBRATION)).astype(int)
    rows = _unit(stored[some])
    i, j = np.triu_indices(len(some), 1)
    apart = people[some][i] != people[some][j]
    if not apart.any():
        return LEAST
    correlations = (rows @ rows.T)[i, j][apart].astype(np.float64)
    z = np.arctanh(np.clip(correlations, -MOST, MOST))
    middle = np.median(z)
    spread = 1.4826 * np.median(np.abs(z - middle))
    pairs = count * (count - 1) / 2
    deviations = NormalDist().inv_cdf(1 - min(_FALSE_ALARMS / pairs, 0.5))
    return float(np.clip(np.tanh(middle + deviations * spread), LEAST, MOST))
