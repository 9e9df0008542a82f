"""The simplest generators: each position by itself, knowing no other position."""

from typing import final

import numpy as np
from jaxtyping import Float, Int, Integer, Num


def uniform(
    values: Num[np.ndarray, "item *grid"],
    num_embeddings: int,
    count: int,
    random: np.random.Generator,
) -> Num[np.ndarray, "count *grid"]:
    """`count` new items, every code as likely, whatever the training items `values` have.

    Of real gains (`num_embeddings` 0), over which nothing is uniform, any that occurs in these.
    """
    shape = (count, *values.shape[1:])
    if num_embeddings:
        return random.integers(num_embeddings, size=shape)
    return random.choice(values.ravel(), size=shape)


@final
class PositionMarginals:
    """p(code at a position) = (count + 1/K) / (n + 1), positions independent of each other.

    `count` is how many of the n training items have the code there; one further item, spread
    evenly over the K codes, leaves none impossible. It is what a prior must beat: it knows where
    each code is frequent, and nothing of what stands beside it.

    Memory: a table of K × positions in float32, and `codes`, which is kept and not copied.
    Raises ValueError for a code outside 0 … K − 1.
    """

    def __init__(self, codes: Integer[np.ndarray, "item *grid"], num_embeddings: int) -> None:
        self._grid = codes.shape[1:]
        self._num_embeddings = num_embeddings
        positions = int(np.prod(self._grid))
        self._training = codes.reshape(len(codes), positions)
        self._check(codes)
        self._bits = np.empty((positions, num_embeddings), np.float32)
        for position in range(positions):
            counts = np.bincount(self._training[:, position], minlength=num_embeddings)
            p = (counts + 1 / num_embeddings) / (len(codes) + 1)
            self._bits[position] = -np.log2(p)

    def bits(self, codes: Integer[np.ndarray, "item *grid"]) -> Float[np.ndarray, "item *grid"]:
        """−log2 p(code) of every position; lower is better."""
        self._check(codes)
        flat = codes.reshape(len(codes), len(self._bits))
        return self._bits[np.arange(len(self._bits)), flat].reshape(codes.shape)

    def draw(self, count: int, random: np.random.Generator) -> Int[np.ndarray, "count *grid"]:
        """`count` new items, int64.

        Each position takes the code of a training item chosen for that position alone, or, with
        probability 1/(n + 1), any code: that is p exactly, and needs no cumulative sums.
        """
        n, positions = self._training.shape
        chosen = random.integers(n + 1, size=(count, positions))
        drawn = random.integers(self._num_embeddings, size=(count, positions))
        item, position = np.nonzero(chosen < n)
        drawn[item, position] = self._training[chosen[item, position], position]
        return drawn.reshape(count, *self._grid)

    def _check(self, codes: Integer[np.ndarray, "item *grid"]) -> None:
        if codes.shape[1:] != self._grid:
            raise ValueError(f"codes on the grid {codes.shape[1:]}, expected {self._grid}")
        if codes.size and not (codes.min() >= 0 and codes.max() < self._num_embeddings):
            raise ValueError(f"a code is outside 0 … {self._num_embeddings - 1}")
