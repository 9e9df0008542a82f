"""Which items make up the batch of a step."""

from functools import lru_cache

import numpy as np

MAX_EPOCH_STEPS = 100
"""Steps after which a history has a row and a run may write a checkpoint, however large a pass."""


def batch_indices(step: int, batch_size: int, count: int, seed: int) -> list[int]:
    """Indices of the items of one step's batch.

    The items are an endless row of shuffled passes over the data, cut into batches; the shuffle of
    pass number n depends on (seed, n) alone, so a resumed run needs no state to go on as before.
    """
    positions = range(step * batch_size, (step + 1) * batch_size)
    return [int(_shuffle(p // count, count, seed)[p % count]) for p in positions]


def epoch_steps(count: int, batch_size: int) -> int:
    """Steps between two rows of the history: a pass over the data, or MAX_EPOCH_STEPS of it."""
    return min(-(-count // batch_size), MAX_EPOCH_STEPS)


@lru_cache(maxsize=4)
def _shuffle(number: int, count: int, seed: int) -> np.ndarray:
    return np.random.default_rng([seed, number]).permutation(count)


def step_seed(seed: int, step: int) -> int:
    """Seed of all that is random within a step: dropout, augmentation, restarts of codes."""
    return int(np.random.SeedSequence([seed, step]).generate_state(1, np.uint64)[0] >> 1)
