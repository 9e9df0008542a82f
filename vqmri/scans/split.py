"""Who is trained on and who is held out."""

from collections.abc import Iterable

import numpy as np

TRAIN, HELD_OUT = "train", "held_out"


def split_subjects(subjects: Iterable[str], *, held_out: float, seed: int) -> dict[str, str]:
    """Side of each subject: all scans of a person are on one side.

    held_out: share of the subjects, rounded, and at least one on each side.
    Raises ValueError when there are fewer than two subjects.
    """
    people = sorted(set(subjects))
    if len(people) < 2:
        raise ValueError("a split needs at least two subjects")
    count = min(max(round(held_out * len(people)), 1), len(people) - 1)
    order = np.random.default_rng(seed).permutation(len(people))
    chosen = {people[i] for i in order[:count]}
    return {person: HELD_OUT if person in chosen else TRAIN for person in people}
