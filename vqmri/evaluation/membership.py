"""Can it be told from the prior who was trained on? Membership inference by the exact likelihood.

The attack takes an item for a member of the training set when its codes have few bits (Yeom et al.
2018, arXiv:1709.01604, a threshold on the loss). That it finds nothing says that this attack finds
nothing; stronger ones exist (Carlini et al. 2022, arXiv:2112.03570).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Integer

LEVEL = 0.05
"""Of the test in `flagged`: how often a model that tells nothing is flagged, at most."""

Bits = Float[np.ndarray, " item"]


class Membership(NamedTuple):
    """What the attack finds.

    auc: 0.5: nothing; 1: every member has fewer bits than every other item
    low, high: its 95 % interval, bootstrap over the subjects of both sides
    control, control_low, control_high: the same of members against members, mean and central 95 %:
        as many training subjects as are held out against the rest. NaN when no rest is left
    p_value: how often subjects dealt to the sides at random give at least this AUC
    true_positives: share of members found with at most 10 % false positives; by chance 0.1
    """

    auc: float
    low: float
    high: float
    control: float
    control_low: float
    control_high: float
    p_value: float
    true_positives: float


def auc(members: Float[np.ndarray, " member"], others: Float[np.ndarray, " other"]) -> float:
    """P(bits of a member < bits of another) + ½ P(equal); U / (members · others) of Mann–Whitney.

    0.5: bits tell nothing; 1: they tell all; lower: fewer are told. NaN when a side is empty.
    """
    if min(len(members), len(others)) == 0:
        return float("nan")
    ordered = np.sort(others)
    not_above = [np.searchsorted(ordered, members, side).sum() for side in ("left", "right")]
    pairs = len(members) * len(others)
    return float(2 * pairs - sum(not_above)) / (2 * pairs)  # counts, so that equals are equal


def true_positives(
    members: Float[np.ndarray, " member"], others: Float[np.ndarray, " other"]
) -> float:
    """Share of members with fewer bits than all but a tenth of the others (rounded down).

    The true-positive rate at 10 % false positives (Carlini et al. 2022): an attack may be sure of a
    few and yet have an AUC of 0.5. 0 to 1; lower: fewer are told.
    """
    return float((members < np.sort(others)[len(others) // 10]).mean())


def membership(
    members: Float[np.ndarray, " member"],
    others: Float[np.ndarray, " other"],
    member_subjects: Sequence[str],
    other_subjects: Sequence[str],
    *,
    seed: int,
    repeats: int = 1000,
) -> Membership:
    """Bits per code of training and of held-out items → what they tell about membership.

    The scans of a subject are dealt and resampled together. The p-value is that of a permutation
    test, (1 + times that AUC or more) / (1 + repeats), which is exact with few subjects too.
    ValueError when a side is empty or a subject is on both.
    """
    if set(member_subjects) & set(other_subjects) or not (len(members) and len(others)):
        raise ValueError("every subject must be of one side, and each side must have one")
    random = np.random.default_rng(seed)
    of_members, of_others = _numbers(member_subjects), _numbers(other_subjects)
    count, held = len(set(member_subjects)), len(set(other_subjects))
    found = auc(members, others)
    resampled = [
        auc(_resampled(members, of_members, random), _resampled(others, of_others, random))
        for _ in range(repeats)
    ]
    control = _dealt(members, of_members, count - held, random, repeats)
    everyone = np.concatenate([of_members, count + of_others])
    chance = _dealt(np.concatenate([members, others]), everyone, count, random, repeats)
    return Membership(
        found,
        *_central(resampled),
        float(np.mean(control)),
        *_central(control),
        (1 + sum(one >= found for one in chance)) / (1 + repeats),
        true_positives(members, others),
    )


def flagged(found: Membership, bound: float) -> bool:
    """Whether training subjects are told from others: AUC at least `bound` and p at most 0.05.

    The permutation test alone holds false alarms at 5 % whatever the bound and however few the
    subjects (a bootstrap of four says [1, 1] too easily), and it finds four members that are all
    below 38 others: p = 1 / C(42, 4). The bound says which AUC matters, because with thousands of
    subjects any excess over 0.5 is more than chance; 0.5 flags every one.
    """
    return found.auc >= bound and found.p_value <= LEVEL


def _numbers(subjects: Sequence[str]) -> Integer[np.ndarray, " item"]:
    """0 … subjects − 1 for each item."""
    return np.unique(np.array(subjects), return_inverse=True)[1]


def _resampled(
    bits: Bits, subjects: Integer[np.ndarray, " item"], random: np.random.Generator
) -> Float[np.ndarray, " drawn"]:
    """The items of as many subjects, drawn with replacement."""
    count = subjects.max() + 1
    times = np.bincount(random.integers(count, size=count), minlength=count)
    return np.repeat(bits, times[subjects])


def _dealt(
    bits: Bits,
    subjects: Integer[np.ndarray, " item"],
    members: int,
    random: np.random.Generator,
    repeats: int,
) -> list[float]:
    """AUCs of `members` subjects chosen at random against the rest; NaN when there are too few."""
    if members < 1:
        return [float("nan")]
    found = []
    for _ in range(repeats):
        chosen = (random.permutation(subjects.max() + 1) < members)[subjects]
        found.append(auc(bits[chosen], bits[~chosen]))
    return found


def _central(values: Sequence[float]) -> tuple[float, float]:
    """The middle 95 %."""
    low, high = np.quantile(values, [0.025, 0.975])
    return float(low), float(high)
