"""How sure a figure of a few dozen items is."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int, Shaped

Sample = Shaped[np.ndarray, "..."]
"""Items along the first axis."""

Groups = Sequence[Shaped[np.ndarray, " item"] | None]
"""Of each sample, the group (subject) of each item; None where every item is its own."""


class Interval(NamedTuple):
    """A figure and the ends of its confidence interval; NaN where they cannot be known."""

    value: float
    low: float
    high: float


def bootstrap(
    statistic: Callable[..., float],
    *samples: Sample,
    seed: int,
    groups: Groups | None = None,
    repeats: int = 1000,
    level: float = 0.95,
) -> Interval:
    """Percentile interval by resampling the items of each sample with replacement (Efron 1979).

    Items of one group are drawn together, so that two scans of one person count as one. Draws for
    which the statistic is not finite are left out. Not for statistics that see how often an item is
    repeated, such as Fréchet distances, coverage and nearest neighbours: the repeats in a draw bias
    them, see `subsampled`. The ends are NaN where no sample has more than one group.

    statistic: of as many arrays as there are samples, each of them drawn items of that sample; what
        belongs together, such as a prediction and its truth, goes into one array
    """
    units = _units(samples, groups)
    random = np.random.default_rng(seed)
    if all(len(own) == 1 for own in units):  # every draw would be the same
        return Interval(float(statistic(*samples)), float("nan"), float("nan"))

    def draw(count: int) -> Int[np.ndarray, " drawn"]:
        return random.integers(count, size=count)

    found = [_of_drawn(statistic, samples, units, draw) for _ in range(repeats)]
    low, high = _quantiles(found, level)
    return Interval(float(statistic(*samples)), low, high)


def subsampled(
    statistic: Callable[..., float],
    *samples: Sample,
    seed: int,
    groups: Groups | None = None,
    share: float = 0.5,
    repeats: int = 200,
    level: float = 0.95,
) -> Interval:
    """Interval by drawing m of n items of each sample without replacement (Politis & Romano 1994).

    value + √(m / (n − m)) · q, with q the quantiles of (θ_m − mean θ_m) over the draws θ_m. A mean
    of m of n items scatters by σ² (1/m − 1/n) about that of all, which scatters by σ²/n itself, so
    the root is the ratio of the two; with half of the items it is 1. Where groups are given, m and
    n count groups. Only the width is taken from smaller sets: the value is that of all items, with
    the bias it has at their number. Draws without a finite statistic are left out; the ends are NaN
    where none is left or no sample has more than one item.
    """
    units = _units(samples, groups)
    random = np.random.default_rng(seed)

    def taken(count: int) -> int:
        return max(1, int(share * count))

    def draw(count: int) -> Int[np.ndarray, " drawn"]:
        return random.permutation(count)[: taken(count)]

    value = float(statistic(*samples))
    left = sum(len(own) - taken(len(own)) for own in units)
    if left == 0:
        return Interval(value, float("nan"), float("nan"))
    found = [_of_drawn(statistic, samples, units, draw) for _ in range(repeats)]
    mean = float(np.mean([x for x in found if np.isfinite(x)] or [np.nan]))
    scale = np.sqrt(sum(taken(len(own)) for own in units) / left)
    low, high = (value + float(scale) * (end - mean) for end in _quantiles(found, level))
    return Interval(value, low, high)


Units = list[list[Int[np.ndarray, " _member"]]]
"""Of each sample what is drawn as one: indices of the items of each group."""


def _units(samples: Sequence[Sample], groups: Groups | None) -> Units:
    units = []
    for sample, own in zip(samples, groups or [None] * len(samples), strict=True):
        if len(sample) == 0:
            raise ValueError("a sample has no items")
        order = np.arange(len(sample)) if own is None else np.unique(own, return_inverse=True)[1]
        if len(order) != len(sample):
            raise ValueError(f"{len(order)} groups named for {len(sample)} items")
        starts = np.flatnonzero(np.diff(np.sort(order))) + 1
        units.append(np.split(np.argsort(order, kind="stable"), starts))
    return units


def _of_drawn(
    statistic: Callable[..., float],
    samples: Sequence[Sample],
    units: Units,
    draw: Callable[[int], Int[np.ndarray, " drawn"]],
) -> float:
    drawn = []
    for sample, own in zip(samples, units, strict=True):
        chosen = draw(len(own))
        if len(own) < len(sample):  # else each item is its own group
            chosen = np.concatenate([own[i] for i in chosen])
        drawn.append(sample[chosen])
    return float(statistic(*drawn))


def _quantiles(found: Sequence[float], level: float) -> tuple[float, float]:
    """The ends of the middle `level` of the finite values; NaN of none."""
    finite: Float[np.ndarray, " draw"] = np.array([x for x in found if np.isfinite(x)])
    if len(finite) == 0:
        return float("nan"), float("nan")
    low, high = np.quantile(finite, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
