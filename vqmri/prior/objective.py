"""What the prior minimises."""

from collections.abc import Sequence

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from vqmri.shapes import Codes, Logits


def nats(logits: Logits, codes: Codes) -> Float[Tensor, "batch *grid"]:
    """−ln p(code) of each position; divide by ln 2 for bits."""
    return functional.cross_entropy(logits.float(), codes, reduction="none")


def nats_per_code(found: Sequence[Tensor], num_embeddings: Sequence[int]) -> Tensor:
    """Mean of −ln p over the positions of all maps of codes, a scalar; real gains are left out.

    found: what the prior returns, (batch, *grid) per map; num_embeddings: values of each map
    """
    codes = [level.flatten() for level, n in zip(found, num_embeddings, strict=True) if n]
    return torch.cat(codes).mean()
