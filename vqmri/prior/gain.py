"""A Gaussian over an unquantised gain, given the code that it belongs to."""

import math

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

MIN_STD = 1e-3


class GaussianGain(nn.Module):
    """p(gain | code) = N(mean[code], std[code]²), each position by itself.

    The other way to sample from a projected VQ-VAE; without it, its continuous factor has no
    prior. `fit` takes the training codes; a code that is rarer than twice takes the moments of all.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, num_embeddings: int) -> None:
        super().__init__()
        self.register_buffer("mean", torch.ones(num_embeddings))
        self.register_buffer("std", torch.ones(num_embeddings))

    @torch.no_grad()
    def fit(self, gains: Float[Tensor, "item *grid"], codes: Int[Tensor, "item *grid"]) -> None:
        """Moments of the gains of each code."""
        values, index = gains.double().flatten(), codes.long().flatten()
        number = len(self.mean)
        count = torch.bincount(index, minlength=number)
        mean = torch.zeros(number).double().index_add_(0, index, values) / count.clamp(min=1)
        spread = (values - mean[index]).square()
        std = (
            torch.zeros(number).double().index_add_(0, index, spread) / count.clamp(min=1)
        ).sqrt()
        rare = count < 2
        mean[rare], std[rare] = values.mean(), values.std(correction=0)
        self.mean.copy_(mean)
        self.std.copy_(std.clamp(min=MIN_STD))

    def nats(
        self, gains: Float[Tensor, "item *grid"], codes: Int[Tensor, "item *grid"]
    ) -> Float[Tensor, "item *grid"]:
        """−ln density of each gain; may be negative, as it is a density and no probability."""
        std = self.std[codes]
        return (
            0.5 * ((gains - self.mean[codes]) / std).square() + (std * math.sqrt(2 * math.pi)).log()
        )
