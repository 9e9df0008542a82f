"""Which items make up the batch of a step."""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from itertools import islice
from typing import TypeVar

import numpy as np

Part = TypeVar("Part")

MAX_EPOCH_STEPS = 100
"""Steps after which a history has a row and a run may write a checkpoint, however large a pass."""

PARTS_AHEAD = 2


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


def step_seed(seed: int, step: int, rank: int = 0) -> int:
    """Seed of all that is random within a step of one process: dropout, restarts of codes."""
    words = [seed, step, rank] if rank else [seed, step]
    return int(np.random.SeedSequence(words).generate_state(1, np.uint64)[0] >> 1)


def item_seed(seed: int, step: int, slot: int) -> int:
    """Seed of what is random about one place in a step's batch, whichever process has it."""
    return int(np.random.SeedSequence([seed, step, 0, slot]).generate_state(1, np.uint64)[0] >> 1)


def ahead(make: Callable[[int, range], Part], keys: Sequence[tuple[int, range]]) -> Iterator[Part]:
    """`make(step, slots)` of each key, in order, with PARTS_AHEAD made before they are asked for.

    They are made one after the other in a thread, so that reading never waits for computing.
    """
    left = iter(keys)
    with ThreadPoolExecutor(1) as reader:
        waiting = deque(reader.submit(make, *key) for key in islice(left, PARTS_AHEAD))
        while waiting:
            part = waiting.popleft()
            waiting.extend(reader.submit(make, *key) for key in islice(left, 1))
            yield part.result()
