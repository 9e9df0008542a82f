"""What every quantizer is."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import NamedTuple

from jaxtyping import Float, Int
from torch import Tensor, nn

from vqmri.quantizers.clusters import Initialisation, starting_rule
from vqmri.quantizers.nearest import squared_distances
from vqmri.shapes import Codebook, Codes, Latents, Scalar


class Quantized(NamedTuple):
    """The result of quantizing latents.

    latents: same shape as the input, gradient copied straight through to the input
    codes: one (batch, *grid) per map, in the order of the quantizer's `map_sizes`: integers (int64)
        in [0, size), or real numbers (float32) where the size is 0
    loss: the quantizer's own terms of the training loss, a scalar
    """

    latents: Tensor
    codes: list[Tensor]
    loss: Tensor


class Quantizer(nn.Module, ABC):
    """Maps latents to the discrete codes of a codebook and codes back to latents.

    map_sizes: how many values each map of codes has; 0 for real numbers
    map_names: a suffix for each map's name
    embedding_dim: length of a codebook vector, and channels of the latents
    commitment_cost: weight of the term that pulls the latents to their codes
    initialisation: how the first training batch makes the codebook
    """

    def __init__(
        self,
        map_sizes: tuple[int, ...],
        map_names: tuple[str, ...],
        embedding_dim: int,
        commitment_cost: float,
        initialisation: Initialisation,
    ) -> None:
        super().__init__()
        self.map_sizes, self.map_names = map_sizes, map_names
        self.num_embeddings, self.embedding_dim = map_sizes[-1], embedding_dim
        self.commitment_cost = commitment_cost
        self.start = starting_rule(initialisation)

    @property
    @abstractmethod
    def codebook(self) -> Tensor:
        """The vectors, (num_embeddings, embedding_dim)."""

    @abstractmethod
    def forward(self, latents: Latents) -> Quantized:
        """Quantize each position over the channel axis. In evaluation mode nothing is learned."""

    def decode(self, codes: Sequence[Tensor]) -> Latents:
        """Latents of all maps of codes: each (batch, *grid), to (batch, embedding_dim, *grid)."""
        (indices,) = codes
        return look_up(self.codebook, indices)

    def distances(self, latents: Latents) -> Float[Tensor, "batch num_embeddings *grid"]:
        """‖z_e − e‖² of each position to each code, in float32 and without a gradient."""
        distances = squared_distances(as_tokens(latents), self.codebook)
        return distances.unflatten(0, (latents.shape[0], *latents.shape[2:])).movedim(-1, 1)


def as_tokens(latents: Latents) -> Float[Tensor, "tokens dim"]:
    """The vector at each position, without a gradient."""
    return latents.detach().movedim(1, -1).reshape(-1, latents.shape[1])


def as_grid(codes: Int[Tensor, " tokens"], latents: Latents) -> Codes:
    """Codes of `as_tokens(latents)`, back at their positions."""
    return codes.reshape(latents.shape[0], *latents.shape[2:])


def look_up(codebook: Codebook, codes: Codes) -> Latents:
    """The codebook vector at each position."""
    return codebook[codes].movedim(-1, 1)


def pull(moving: Latents, fixed: Latents) -> Scalar:
    """mean((moving − sg[fixed])²): its gradient reaches `moving` only."""
    return (moving - fixed.detach()).square().mean()


def straight_through(latents: Latents, quantized: Latents) -> Latents:
    """The value of `quantized` with the gradient of `latents` (van den Oord et al. 2017, §3.2)."""
    return latents + (quantized - latents).detach()
