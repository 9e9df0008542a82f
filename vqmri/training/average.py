"""The moving average of a model's weights."""

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

Tensors = list[Tensor] | tuple[Tensor, ...]


def averaged(model: nn.Module, decay: float) -> AveragedModel:
    """A copy that follows `model` at each `update_parameters(model)`, buffers at once.

    w̄ ← γw̄ + (1 − γ)w, with γ = min(decay, (1 + n) / (10 + n)) after n updates (Polyak &
    Juditsky 1992; the rise of γ keeps the first, untrained weights out of it).
    """

    @torch.no_grad()
    def follow(averages: Tensors, weights: Tensors, number: Tensor | int) -> None:
        rising = (1 + int(number)) / (10 + int(number))
        torch._foreach_lerp_(averages, weights, 1 - min(decay, rising))

    return AveragedModel(model, multi_avg_fn=follow)
