"""How much of the codebooks is in use."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from vqmri.protocols import Metrics


class Usage:
    """Counts codes over an epoch; figures of single batches would depend on the batch size."""

    def __init__(self, num_embeddings: Sequence[int]) -> None:
        self._num_embeddings = tuple(num_embeddings)
        self._counts: list[Tensor] = []
        self._reset()

    def add(self, codes: Sequence[Tensor]) -> None:
        """Count the codes of all levels, finest first."""
        for count, level in zip(self._counts, codes, strict=True):
            count += torch.bincount(level.flatten().long().cpu(), minlength=len(count))

    def take(self) -> Metrics:
        """`usage_level_N` and `perplexity_level_N` of what was counted, and start anew."""
        metrics: Metrics = {}
        for level, count in enumerate(self._counts):
            metrics[f"usage_level_{level}"] = usage(count.numpy())
            metrics[f"perplexity_level_{level}"] = perplexity(count.numpy())
        self._reset()
        return metrics

    def _reset(self) -> None:
        self._counts = [torch.zeros(number, dtype=torch.long) for number in self._num_embeddings]


def usage(counts: np.ndarray) -> float:
    """Share of the codebook that occurs at all, 0 to 1; higher is better."""
    return float((counts > 0).mean())


def entropy_bits(counts: np.ndarray) -> float:
    """Entropy of the distribution of codes, −Σ p log2 p, in bits per code."""
    p: Float[np.ndarray, " code"] = counts[counts > 0] / counts.sum()
    return float(-(p * np.log2(p)).sum()) + 0.0


def perplexity(counts: np.ndarray) -> float:
    """2^entropy: how many equally frequent codes would be as varied; at most len(counts)."""
    return float(2 ** entropy_bits(counts))
