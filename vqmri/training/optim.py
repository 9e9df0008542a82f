"""Optimisers and learning rate."""

import math
from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn, optim

from vqmri.quantizers import Quantizer

_BETAS = (0.9, 0.99)


def adamw(model: nn.Module, weight_decay: float) -> optim.AdamW:
    """AdamW that decays matrices and kernels only (Loshchilov & Hutter 2019, arXiv:1711.05101).

    Its learning rate is set at every step.
    """
    matrices, rest = _matrices_and_rest(model)
    decayed = {"params": matrices, "weight_decay": weight_decay}
    free = {"params": rest, "weight_decay": 0.0}
    return optim.AdamW([decayed, free], lr=0.0, betas=_BETAS, fused=True)


class Muon(optim.Optimizer):
    """Matrices and kernels follow their orthogonalised momentum, all else Adam.

    A kernel is taken for a matrix of its first axis by all others. What is added to it has singular
    values near 1: directions in which the gradient is weak are learnt as fast as strong ones.
    A number moves by 0.2 of the learning rate, root mean square, as it does late under AdamW, whose
    first steps are five times as long. The learning rate is set at every step. torch.optim.Muon
    takes matrices alone.

    Source: Jordan et al., "Muon: an optimizer for hidden layers in neural networks" (2024); the
    scale and the decay from Liu et al., "Muon is scalable for LLM training" (2025).
    """

    MOMENTUM = 0.95
    EPSILON = 1e-8

    def __init__(self, model: nn.Module, weight_decay: float) -> None:
        matrices, rest = _matrices_and_rest(model)
        super().__init__([{"params": matrices}, {"params": rest}], {"lr": 0.0})
        self._weight_decay = weight_decay

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Move all that has a gradient."""
        for group, move in zip(self.param_groups, (self._orthogonal, self._adam), strict=True):
            for parameter in group["params"]:
                if parameter.grad is not None:
                    move(parameter, parameter.grad, self.state[parameter], group["lr"])

    def _orthogonal(self, x: Tensor, gradient: Tensor, state: dict[str, Any], rate: float) -> None:
        if not state:
            state["momentum"] = torch.zeros_like(x)
        momentum = state["momentum"].lerp_(gradient, 1 - self.MOMENTUM)
        ahead = gradient.lerp(momentum, self.MOMENTUM).flatten(1)  # Nesterov's
        x.mul_(1 - rate * self._weight_decay)
        x.add_(orthogonal(ahead).view_as(x), alpha=-rate * 0.2 * math.sqrt(max(ahead.shape)))

    def _adam(self, x: Tensor, gradient: Tensor, state: dict[str, Any], rate: float) -> None:
        if not state:
            state |= {
                "step": torch.zeros(()),
                "mean": torch.zeros_like(x),
                "square": torch.zeros_like(x),
            }
        state["step"] += 1
        mean = state["mean"].lerp_(gradient, 1 - _BETAS[0])
        square = state["square"].lerp_(gradient.square(), 1 - _BETAS[1])
        first, second = (1 - beta ** float(state["step"]) for beta in _BETAS)
        x.addcdiv_(mean, (square / second).sqrt_().add_(self.EPSILON), value=-rate / first)


def orthogonal(matrix: Float[Tensor, "rows columns"]) -> Float[Tensor, "rows columns"]:
    """The matrix with its singular values drawn near 1: between about 0.7 and 1.2.

    Five steps of a Newton–Schulz iteration of fifth order (Jordan et al. 2024), which enlarges what
    is small at most 3.4445⁵ = 485 times: directions far weaker than that stay below. Zeros stay.
    """
    upright = len(matrix) > matrix.shape[1]
    x = matrix.T if upright else matrix  # the product below is then the smaller one
    x = x / x.norm().clamp_min(1e-12)
    for _ in range(5):
        product = x @ x.T
        x = torch.addmm(x, 2.0315 * product @ product - 4.7750 * product, x, beta=3.4445)
    return x.T if upright else x


def warmup_cosine(peak: float, warmup: int, steps: int) -> Callable[[int], float]:
    """Learning rate of a step: linear up to `peak` over `warmup` steps, then a cosine to zero.

    The cosine is that of Loshchilov & Hutter 2017, arXiv:1608.03983, without restarts.
    """

    def rate(step: int) -> float:
        rise = min(1.0, (step + 1) / max(warmup, 1))
        return peak * rise * 0.5 * (1 + math.cos(math.pi * step / steps))

    return rate


def _matrices_and_rest(model: nn.Module) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
    """What is trained, in two parts.

    Codebooks are of the rest: a code that is not in use would decay to zero.
    """
    codebooks = {id(p) for m in model.modules() if isinstance(m, Quantizer) for p in m.parameters()}
    matrices: list[nn.Parameter] = []
    rest: list[nn.Parameter] = []
    for parameter in filter(lambda p: p.requires_grad, model.parameters()):
        is_matrix = parameter.ndim > 1 and id(parameter) not in codebooks
        (matrices if is_matrix else rest).append(parameter)
    return matrices, rest
