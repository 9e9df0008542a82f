"""Figures of the stage `use`, from what its nets said."""

from collections.abc import Callable, Mapping, Sequence

import numpy as np
from jaxtyping import Float

from vqmri.evaluation.accuracy import (
    accuracy,
    chance,
    mean_absolute_error,
    obedience,
    r_squared,
    relative,
)
from vqmri.evaluation.intervals import bootstrap
from vqmri.evaluation.segmentation import mean_dice
from vqmri.protocols import Metrics
from vqmri.stages.use_net import SOURCES

Found = Mapping[str, Mapping[str, np.ndarray]]
"""Of each source what its net found: arrays by name."""

Numbers = Float[np.ndarray, " item"]
"""Values in their unit, or indices of classes."""

Asked = Float[np.ndarray, " sample"]
"""The same, of the samples."""

Pairs = Float[np.ndarray, "item 2"]
"""What was said, and what is right."""


def of_classes(
    found: Found, truth: Numbers, asked: Asked, subjects: Sequence[str], seed: int
) -> Metrics:
    """Classification Accuracy Score: accuracies on held-out scans, all higher is better."""

    def share(pairs: Pairs) -> float:
        return accuracy(*pairs.astype(np.int64).T)

    guess = chance(truth.astype(np.int64))
    scores = _scores(
        {s: _pairs(found[s]["held_out"], truth) for s in SOURCES}, share, subjects, seed
    )
    return _finite(
        scores
        | {
            "chance": guess,
            "cas": _relative(scores, guess),
            "obeyed": share(_pairs(found["real"]["samples"], asked)),
            "reconstructed": share(_pairs(found["real"]["reconstructed"], truth)),
        }
    )


def of_values(
    found: Found,
    truth: Numbers,
    asked: Asked,
    subjects: Sequence[str],
    seed: int,
    *,
    mean: float,
) -> Metrics:
    """R² on held-out scans, higher is better, and mean absolute errors in the value's unit.

    mean: of the training values
    """

    def explained(pairs: Pairs) -> float:
        return r_squared(pairs[:, 0], pairs[:, 1], mean)

    held = {source: _pairs(found[source]["held_out"], truth) for source in SOURCES}
    scores = _scores(held, explained, subjects, seed)
    correlation, slope = obedience(asked, found["real"]["samples"])
    errors = {source: mean_absolute_error(*pairs.T) for source, pairs in held.items()}
    errors["chance"] = mean_absolute_error(np.full_like(truth, mean), truth)
    return _finite(
        scores
        | {f"{source}_mae": error for source, error in errors.items()}
        | {
            "chance": 0.0,
            "cas": _relative(scores, 0.0),
            "obeyed": correlation,
            "obeyed_slope": slope,
            "reconstructed": explained(_pairs(found["real"]["reconstructed"], truth)),
        }
    )


def of_labels(
    found: Found, label_values: Sequence[int], subjects: Sequence[str], seed: int
) -> Metrics:
    """Dice on held-out scans, mean of scans and of all labels but the background, and of each.

    label_values: without the background
    """
    dice = {source: found[source]["dice"] for source in SOURCES}
    scores = _scores(dice, mean_dice, subjects, seed)
    of_each = {
        f"{source}_label_{value}": mean_dice(of_scans[:, [column]])
        for source, of_scans in dice.items()
        for column, value in enumerate(label_values)
    }
    ratio = scores["synthetic"] / scores["real"] if scores["real"] else np.nan
    return _finite(scores | of_each | {"synthetic_over_real": ratio})


def _relative(scores: Metrics, guess: float) -> float:
    """What samples are worth beside real data; NaN where even these are not surely above chance."""
    if not scores["real_low"] > guess:  # a ratio of two numbers near zero says nothing; NaN: unsure
        return float("nan")
    return relative(scores["synthetic"], scores["real"], guess)


def _pairs(said: Numbers, right: Numbers) -> Pairs:
    return np.stack([said, right], axis=1)


def _scores(
    held_out: Mapping[str, Float[np.ndarray, "item column"]],
    statistic: Callable[[np.ndarray], float],
    subjects: Sequence[str],
    seed: int,
) -> Metrics:
    """The statistic of each source, and its 95 % interval over held-out subjects."""
    scores: Metrics = {}
    for source, items in held_out.items():
        found = bootstrap(statistic, items, groups=[np.array(subjects)], seed=seed)
        scores |= {source: found.value, f"{source}_low": found.low, f"{source}_high": found.high}
    return scores


def _finite(figures: Metrics) -> Metrics:
    return {name: float(value) for name, value in figures.items() if np.isfinite(value)}
