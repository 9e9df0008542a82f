"""How long steps take, measured in turns: only ratios within the same minutes count."""

from collections.abc import Mapping, Sequence
from statistics import median

import numpy as np
from jaxtyping import Float
from tqdm import tqdm

from benchmarks.contender import Batches, Contender, take_step

ROUNDS = 5
STEPS_PER_TURN = 3

Times = Mapping[str, Float[np.ndarray, "round step"]]
"""Seconds of each step, by the contender's name."""


def time_in_turns(contenders: Sequence[Contender], batches: Batches, first_step: int) -> Times:
    """Let each contender take STEPS_PER_TURN steps in turn, ROUNDS times.

    Contenders must have been trained before, so that nothing is a first time. They go on from
    `first_step` and all get the same batches.
    """
    times = {contender.name: np.zeros((ROUNDS, STEPS_PER_TURN)) for contender in contenders}
    for contender in contenders:
        contender.model.train()
    for turn in tqdm(range(ROUNDS), desc="time in turns", unit="round"):
        step = first_step + turn * STEPS_PER_TURN
        for contender in contenders:
            times[contender.name][turn] = [
                take_step(contender, batches, step + i) for i in range(STEPS_PER_TURN)
            ]
    return times


def seconds_per_step(times: Times, name: str) -> float:
    """Median over all rounds."""
    return float(np.median(times[name]))


def ratio(times: Times, name: str, other: str) -> float:
    """Step time of `name` by that of `other`: medians within each round, then over rounds."""
    pairs = zip(times[name], times[other], strict=True)
    return median(float(np.median(own) / np.median(theirs)) for own, theirs in pairs)
