"""What every quantizer is."""

from abc import ABC, abstractmethod
from typing import NamedTuple

from torch import Tensor, nn

from vqmri.shapes import Codes, Latents, Scalar


class Quantized(NamedTuple):
    """The result of quantizing latents.

    latents: same shape as the input, gradient copied straight through to the input
    codes: (batch, *grid), integers in [0, num_embeddings)
    loss: the quantizer's own terms of the training loss, a scalar
    """

    latents: Tensor
    codes: Tensor
    loss: Tensor


class Quantizer(nn.Module, ABC):
    """Maps latents to the discrete codes of a codebook and codes back to latents."""

    num_embeddings: int
    embedding_dim: int

    @abstractmethod
    def forward(self, latents: Latents) -> Quantized:
        """Quantize each position over the channel axis. In evaluation mode nothing is learned."""

    @abstractmethod
    def decode(self, codes: Codes) -> Latents:
        """Codebook vectors of codes: (batch, *grid) to (batch, embedding_dim, *grid)."""


def commitment_loss(latents: Latents, quantized: Latents) -> Scalar:
    """mean((z_e − sg[e])²), the term that β weighs: its gradient reaches the encoder only."""
    return (latents - quantized.detach()).square().mean()


def straight_through(latents: Latents, quantized: Latents) -> Latents:
    """The value of `quantized` with the gradient of `latents` (van den Oord et al. 2017, §3.2)."""
    return latents + (quantized - latents).detach()
