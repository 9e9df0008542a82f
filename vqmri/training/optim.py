"""Optimiser and learning rate."""

import math
from collections.abc import Callable
from itertools import compress

from torch import nn, optim

from vqmri.quantizers import Quantizer


def adamw(model: nn.Module, weight_decay: float) -> optim.AdamW:
    """AdamW that decays matrices and kernels only; its learning rate is set at every step.

    Codebooks are not decayed: a code that is not in use would drift to zero.
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    codebooks = {id(p) for m in model.modules() if isinstance(m, Quantizer) for p in m.parameters()}
    decayed = [p.ndim > 1 and id(p) not in codebooks for p in parameters]
    return optim.AdamW(
        [
            {"params": list(compress(parameters, decayed)), "weight_decay": weight_decay},
            {
                "params": [p for p, d in zip(parameters, decayed, strict=True) if not d],
                "weight_decay": 0.0,
            },
        ],
        lr=0.0,
        betas=(0.9, 0.99),
        fused=True,
    )


def warmup_cosine(peak: float, warmup: int, steps: int) -> Callable[[int], float]:
    """Learning rate of a step: linear up to `peak` over `warmup` steps, then a cosine to zero."""

    def rate(step: int) -> float:
        rise = min(1.0, (step + 1) / max(warmup, 1))
        return peak * rise * 0.5 * (1 + math.cos(math.pi * step / steps))

    return rate
