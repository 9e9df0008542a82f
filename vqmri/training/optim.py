"""Optimiser and learning rate."""

import math
from collections.abc import Callable

from torch import nn, optim


def adamw(model: nn.Module, weight_decay: float) -> optim.AdamW:
    """AdamW that decays matrices and kernels only; its learning rate is set at every step."""
    parameters = [p for p in model.parameters() if p.requires_grad]
    return optim.AdamW(
        [
            {"params": [p for p in parameters if p.ndim > 1], "weight_decay": weight_decay},
            {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
        ],
        lr=0.0,
        betas=(0.9, 0.99),
    )


def warmup_cosine(peak: float, warmup: int, steps: int) -> Callable[[int], float]:
    """Learning rate of a step: linear up to `peak` over `warmup` steps, then a cosine to zero."""

    def rate(step: int) -> float:
        rise = min(1.0, (step + 1) / max(warmup, 1))
        return peak * rise * 0.5 * (1 + math.cos(math.pi * step / steps))

    return rate
