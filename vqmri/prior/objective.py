"""What the prior minimises."""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from vqmri.shapes import Codes, Logits


def bits(logits: Logits, codes: Codes) -> Float[Tensor, "batch *grid"]:
    """−log2 p(code) of each position."""
    return functional.cross_entropy(logits.float(), codes, reduction="none") / math.log(2)


def nats_per_code(logits: list[Tensor], codes: list[Tensor]) -> Tensor:
    """Mean of −ln p(code) over the positions of all levels; divide by ln 2 for bits. A scalar."""
    totals = [
        functional.cross_entropy(level_logits.float(), level_codes, reduction="sum")
        for level_logits, level_codes in zip(logits, codes, strict=True)
    ]
    return torch.stack(totals).sum() / sum(level_codes.numel() for level_codes in codes)
