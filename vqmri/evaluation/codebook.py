"""How much of the codebooks is in use."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from vqmri.protocols import Metrics


class Usage(nn.Module):
    """Counts codes over an epoch; figures of single batches would depend on the batch size.

    The counts are buffers, for a checkpoint to hold.
    """

    def __init__(self, names: Sequence[str], num_embeddings: Sequence[int]) -> None:
        """One name and number of values per map; maps of real numbers (0 values) are left out."""
        super().__init__()
        self._sizes = dict(zip(names, num_embeddings, strict=True))
        for name, number in self._sizes.items():
            if number:
                self.register_buffer(name, torch.zeros(number, dtype=torch.long))

    def add(self, maps: Sequence[Tensor]) -> None:
        """Count the codes of all maps, finest first."""
        for name, codes in zip(self._sizes, maps, strict=True):
            if count := self._sizes[name]:
                found = torch.bincount(codes.flatten().long().cpu(), minlength=count)
                self.get_buffer(name).add_(found)

    def take(self, total: Callable[[Tensor], Tensor] = lambda counts: counts) -> Metrics:
        """`usage_NAME` and `perplexity_NAME` of what was counted, and start anew.

        total: adds up the counts of all processes that count
        """
        metrics: Metrics = {}
        for name, own in self.named_buffers():
            count = total(own.clone()).cpu()
            metrics[f"usage_{name}"] = usage(count.numpy())
            metrics[f"perplexity_{name}"] = perplexity(count.numpy())
            own.zero_()
        return metrics


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
