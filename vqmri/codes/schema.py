"""How codes are stored."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

FORMAT_VERSION = 2
_SMALL_GRID = 512


@dataclass(frozen=True)
class CodeMap:
    """One array of a store.

    name: of the array, as `level_0` or `level_0_gain`; level 0 is the finest
    grid: positions per axis
    num_embeddings: the values are 0 … num_embeddings − 1; 0 for gains that are real numbers
    """

    name: str
    grid: tuple[int, ...]
    num_embeddings: int

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """The narrowest unsigned type that holds `num_embeddings` itself; float32 for real gains.

        num_embeddings is the fill value (NaN for real gains): a chunk that is missing reads as a
        code that does not exist, and not as code 0.
        """
        if self.num_embeddings == 0:
            return np.dtype(np.float32)
        return np.min_scalar_type(self.num_embeddings)

    def chunk_items(self, items_per_shard: int) -> int:
        """Items in a chunk: one, or all `items_per_shard` of small grids, for the files' sake."""
        return items_per_shard if int(np.prod(self.grid)) < _SMALL_GRID else 1

    def is_valid(self, values: np.ndarray) -> bool:
        """Whether all `values`, (item, *grid), are such as can have been written."""
        if self.num_embeddings == 0:
            return bool(np.isfinite(values).all())
        return bool((values < self.num_embeddings).all())


def bits_per_position(num_embeddings: int) -> float:
    """log2 K; of a gain that is a real number (0) the 32 bits as which it is stored."""
    return math.log2(num_embeddings) if num_embeddings else 32.0


def code_maps(
    names: Sequence[str], grids: Sequence[Sequence[int]], num_embeddings: Sequence[int]
) -> list[CodeMap]:
    """The maps of a model, finest first: name, positions per axis and number of values of each.

    Raises ValueError when `names`, `grids` and `num_embeddings` are not of one length.
    """
    columns = zip(names, grids, num_embeddings, strict=True)
    return [CodeMap(name, tuple(grid), number) for name, grid, number in columns]
