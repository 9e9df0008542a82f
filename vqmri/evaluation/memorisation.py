"""Do samples repeat the scans that were trained on? The nearest known items, and whose they are.

What is found tells how near a sample is by one measure; another measure may find more.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Integer
from scipy.spatial.distance import cdist

_ITEMS_PER_CHUNK = 64
_KNOWN_PER_CHUNK = 4096
_VALUES_AT_ONCE = 2**27

Distances = Float[np.ndarray, "sample known"]
Items = Float[np.ndarray, "item channel *space"]
Known = Float[np.ndarray, "known channel *space"]
Rows = Float[np.ndarray, "item value"]
ItemChunks = Callable[[], Iterable[Items]]
KnownChunks = Callable[[], Iterable[Known]]
"""Chunks of volumes too many for the memory; every call begins anew."""


class Share(NamedTuple):
    """A share of samples, and what it is by chance; higher: nearer to training data.

    low, high: 95 % interval, bootstrap over samples: other samples of this model
    chance, chance_low, chance_high: mean and central 95 % of the share when subjects are dealt to
        the two sides at random: another split. A few subjects are near to many samples, which
        makes this the wider one; samples are nearer than by chance only above chance_high
    """

    value: float
    low: float
    high: float
    chance: float
    chance_low: float
    chance_high: float


def correlations(items: ItemChunks, known: KnownChunks) -> Float[np.ndarray, "item known"]:
    """Pearson's r over all voxels and channels of every pair; 0 where a volume is constant.

    −1 to 1; 1: a copy. High values alone are no finding, as aligned scans are alike: compare with
    those of held-out scans and the same known ones. ValueError without an item or a known one.
    """
    rows = [
        np.concatenate([some @ other.T for other in map(_unit, known())], axis=1)
        for some in _gathered(map(_unit, items()))
    ]
    return np.concatenate(rows).clip(-1, 1)


def _gathered(chunks: Iterable[Rows]) -> Iterator[Rows]:
    """Chunks put together to _VALUES_AT_ONCE: for each lot all that is known is read once."""
    lot: list[np.ndarray] = []
    for chunk in chunks:
        lot.append(chunk)
        if sum(one.size for one in lot) + chunk.size > _VALUES_AT_ONCE:
            yield np.concatenate(lot)
            lot = []
    if lot:
        yield np.concatenate(lot)


def _unit(volumes: Float[np.ndarray, "item ..."]) -> Rows:
    """Each volume less its mean and divided by its norm, so that a product is a correlation."""
    rows = volumes.reshape(len(volumes), -1).astype(np.float32)
    # a sum of float32 in float64 is exact enough for a constant to leave zeros and no noise
    rows -= rows.mean(axis=1, dtype=np.float64, keepdims=True).astype(np.float32)
    norms = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(norms > 0, norms, 1)


def distances(
    features: Float[np.ndarray, "item feature"], known: Float[np.ndarray, "known feature"]
) -> Float[np.ndarray, "item known"]:
    """Euclidean distance of every pair, ≥ 0; 0: the same features. Compare as `correlations`."""
    return cdist(features, known)


def longest_shared_run(
    codes: Integer[np.ndarray, "item *grid"], known: Integer[np.ndarray, "known *grid"]
) -> Integer[np.ndarray, " item"]:
    """Most positions in a row, in raster order, at which an item has one known item's codes.

    max over known items k and starts a of the greatest n with code_p = code_p of k for all p in
    [a, a + n). Of one map, at most its positions: a copy. Codes of the empty margin are the same in
    many scans, so compare with held-out items. 0 where nothing is shared, or no item is known.
    """
    positions = int(np.prod(codes.shape[1:]))
    items, others = (np.ascontiguousarray(a.reshape(len(a), positions).T) for a in (codes, known))
    lengths = np.zeros(len(codes), np.int64)
    for i in range(0, len(codes), _ITEMS_PER_CHUNK):
        chunk = slice(i, i + _ITEMS_PER_CHUNK)
        for j in range(0, len(known), _KNOWN_PER_CHUNK):
            runs = _runs(items[:, chunk], others[:, j : j + _KNOWN_PER_CHUNK])
            lengths[chunk] = np.maximum(lengths[chunk], runs.max(axis=1))
    return lengths


def _runs(
    items: Integer[np.ndarray, "position item"], known: Integer[np.ndarray, "position known"]
) -> Integer[np.ndarray, "item known"]:
    """Longest run of every pair, by one step along all pairs' runs at once."""
    shape = (items.shape[1], known.shape[1])
    run, longest = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    for one, other in zip(items, known, strict=True):
        run += 1
        run *= one[:, None] == other[None]
        np.maximum(longest, run, out=longest)
    return longest


def share_nearer(
    distances: Distances,
    members: Bool[np.ndarray, " known"],
    subjects: Sequence[str],
    *,
    seed: int,
    repeats: int = 1000,
) -> Share:
    """Share of samples nearer to training scans than to equally many held-out ones.

    mean over samples of P(d_S < d_T) + ½ P(d_S = d_T): d_S and d_T are the sample's least distances
    to k training and to k held-out subjects, k being the number of the smaller side, drawn without
    replacement, because more neighbours alone are nearer ones. 0.5: no nearer than to scans never
    seen. The mean over all draws is exact: with n subjects on the larger side, m of which are
    nearer than all k of the other, none of the m is drawn with probability C(n − m, k) / C(n, k).
    Copies of training scans have ½ + k / 2n and no 1, as few originals are drawn: `share_trained`
    finds those.

    distances: any dissimilarity, such as 1 − r; members: which known items were trained on;
    subjects: of the known items; a subject is as near as its nearest scan
    ValueError when a subject is on both sides, or a side is empty.
    """
    return _share(_in_equal_draws, distances, members, subjects, seed, repeats)


def share_trained(
    distances: Distances,
    members: Bool[np.ndarray, " known"],
    subjects: Sequence[str],
    *,
    seed: int,
    repeats: int = 1000,
) -> Share:
    """Share of samples whose nearest known scan was trained on, ties half; 1 for copies of those.

    Samples that know no side have n / (n + k), the share of the training subjects. Arguments and
    errors are those of `share_nearer`.
    """
    return _share(_among_all, distances, members, subjects, seed, repeats)


def _share(
    score: Callable[[np.ndarray, np.ndarray], np.ndarray],
    distances: Distances,
    members: Bool[np.ndarray, " known"],
    subjects: Sequence[str],
    seed: int,
    repeats: int,
) -> Share:
    names, index = np.unique(np.array(subjects), return_inverse=True)
    trained = np.isin(np.arange(len(names)), index[members])
    if trained[index[~members]].any() or trained.all() or not trained.any():
        raise ValueError("every subject must be of one side, and each side must have one")
    nearest = np.full((len(distances), len(names)), np.inf)
    np.minimum.at(nearest.T, index, distances.T)
    random = np.random.default_rng(seed)
    scores = score(nearest, trained)
    means = [random.choice(scores, len(scores)).mean() for _ in range(repeats)]
    dealt = [score(nearest, random.permutation(trained)).mean() for _ in range(repeats)]
    low, high, chance_low, chance_high = np.quantile([means, dealt], [0.025, 0.975], axis=1).T.flat
    chance = np.mean(dealt)
    return Share(*map(float, (scores.mean(), low, high, chance, chance_low, chance_high)))


def _in_equal_draws(
    nearest: Float[np.ndarray, "sample subject"], trained: Bool[np.ndarray, " subject"]
) -> Float[np.ndarray, " sample"]:
    many, few = nearest[:, trained], nearest[:, ~trained]
    n, k = many.shape[1], few.shape[1]
    if n < k:
        return 1 - _in_equal_draws(nearest, ~trained)
    left = n - np.arange(n)
    none_drawn = np.cumprod([1.0, *np.maximum(left - k, 0) / left])
    least = few.min(axis=1, keepdims=True)
    farther = none_drawn[(many <= least).sum(axis=1)]
    not_nearer = none_drawn[(many < least).sum(axis=1)]
    return 1 - (farther + not_nearer) / 2


def _among_all(
    nearest: Float[np.ndarray, "sample subject"], trained: Bool[np.ndarray, " subject"]
) -> Float[np.ndarray, " sample"]:
    member, other = nearest[:, trained].min(axis=1), nearest[:, ~trained].min(axis=1)
    return (1 + np.sign(other - member)) / 2
