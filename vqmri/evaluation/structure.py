"""How sets of codes differ in structure and variety: statistics that need no model."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int, Integer

from vqmri.evaluation.distances import jensen_shannon

Items = Integer[np.ndarray, "item *grid"]

_ITEMS_PER_CHUNK = 64
_TRAINING_PER_CHUNK = 4096
_COUNTED_IN_A_BYTE = 255


def neighbour_divergence(
    codes: Items, reference: Integer[np.ndarray, "other *grid"], num_embeddings: int
) -> float:
    """Jensen–Shannon divergence of the codes of neighbours, in bits; lower is better.

    Per axis, P and Q are the two sets' distributions of pairs (code at p, code one step along the
    axis), and JSD = ½ KL(P‖M) + ½ KL(Q‖M) with M = ½ (P + Q); the mean over the axes is returned.
    0: the sets have the same pairs equally often; 1: no pair in common. Finite sets of one
    distribution are not at 0, so compare with the divergence of held-out real codes, and between
    sets of one size. Axes of length 1 have no neighbours and are left out; NaN when no axis has
    any, or a set is empty. Raises ValueError for a code that is not below `num_embeddings`.
    """
    if min(codes.size, reference.size) == 0:
        return float("nan")
    if max(codes.max(), reference.max()) >= num_embeddings:
        raise ValueError(f"a code is not below num_embeddings, {num_embeddings}")
    divergences = [
        _divergence(_pairs(codes, axis, num_embeddings), _pairs(reference, axis, num_embeddings))
        for axis in range(1, codes.ndim)
        if codes.shape[axis] > 1
    ]
    return float(np.mean(divergences)) if divergences else float("nan")


def _pairs(codes: Items, axis: int, num_embeddings: int) -> Int[np.ndarray, " pair"]:
    """One number per pair of neighbours along an axis: first · num_embeddings + second."""
    along = np.moveaxis(codes, axis, 0).astype(np.int64)
    return (along[:-1] * num_embeddings + along[1:]).ravel()


def _divergence(a: Int[np.ndarray, " a"], b: Int[np.ndarray, " b"]) -> float:
    counted = [np.unique(pairs, return_counts=True) for pairs in (a, b)]
    kinds = np.union1d(counted[0][0], counted[1][0])
    p, q = np.zeros(len(kinds)), np.zeros(len(kinds))
    for share, (found, counts) in zip((p, q), counted, strict=True):
        share[np.searchsorted(kinds, found)] = counts / counts.sum()
    return jensen_shannon(p, q)


def unique_items(maps: Sequence[Integer[np.ndarray, "item ..."]]) -> int:
    """Number of distinct items, at most their number; higher is more varied.

    maps: one array per level, of the same items in the same order. Two items are the same when
        every code of every level is.
    """
    return len(set(zip(*([item.tobytes() for item in level] for level in maps), strict=True)))


def pairwise_difference(codes: Items) -> float:
    """Mean share of positions at which two different items differ, 0 to 1.

    1 − Σ c (c − 1) / (positions · n (n − 1)) over positions and codes, c being how many of the n
    items have that code at that position. 0: all items are equal. Samples should have the value of
    real codes: below it they lack variety, above it they lack structure. NaN for fewer than 2.
    """
    n = len(codes)
    if n < 2 or codes.size == 0:
        return float("nan")
    flat = codes.reshape(n, -1).astype(np.int64)
    ids = flat + np.arange(flat.shape[1]) * (int(flat.max()) + 1)
    counts = np.unique(ids, return_counts=True)[1]
    pairs = flat.shape[1] * n * (n - 1)
    return (pairs - int((counts * (counts - 1)).sum())) / pairs


def nearest_difference(
    codes: Items, training: Integer[np.ndarray, "training *grid"]
) -> Float[np.ndarray, " item"]:
    """Share of positions at which each item differs from the training item nearest to it.

    min over the training set of the Hamming distance / positions, 0 to 1. 0: a copy of a training
    item. Values well below those of held-out real codes mean that training items are repeated.
    NaN when there is no training item.
    """
    top = max((int(a.max()) for a in (codes, training) if a.size), default=0)
    narrow = np.min_scalar_type(top)  # bytes are compared several times faster than int64
    positions = int(np.prod(codes.shape[1:]))
    items, known = (
        np.ascontiguousarray(a.reshape(len(a), positions).T.astype(narrow))
        for a in (codes, training)
    )
    nearest = np.full(len(codes), np.nan)
    for i in range(0, len(codes), _ITEMS_PER_CHUNK):
        chunk = slice(i, i + _ITEMS_PER_CHUNK)
        for j in range(0, len(training), _TRAINING_PER_CHUNK):
            distances = _hamming(items[:, chunk], known[:, j : j + _TRAINING_PER_CHUNK])
            nearest[chunk] = np.fmin(nearest[chunk], distances.min(axis=1))  # fmin skips NaN
    return nearest / positions


def _hamming(
    items: Integer[np.ndarray, "position item"], known: Integer[np.ndarray, "position known"]
) -> Int[np.ndarray, "item known"]:
    """Number of positions that differ, for every pair; sums of bytes, widened before they wrap."""
    shape = (items.shape[1], known.shape[1])
    total, part = np.zeros(shape, np.int64), np.zeros(shape, np.uint8)
    differs = np.empty(shape, bool)
    for position, (one, other) in enumerate(zip(items, known, strict=True), start=1):
        np.not_equal(one[:, None], other[None], out=differs)
        np.add(part, differs.view(np.uint8), out=part)
        if position % _COUNTED_IN_A_BYTE == 0 or position == len(items):
            total += part
            part[:] = 0
    return total
