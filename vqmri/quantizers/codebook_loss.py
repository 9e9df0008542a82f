"""The codebook that gradient descent moves."""

from typing import final

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from vqmri.quantizers.base import (
    Quantized,
    Quantizer,
    as_grid,
    as_tokens,
    pull,
    straight_through,
)
from vqmri.quantizers.clusters import Initialisation, dead_codes, draw
from vqmri.quantizers.distributed import chosen_by_rank_0, sum_over_ranks
from vqmri.quantizers.nearest import nearest
from vqmri.quantizers.parts import MovedByData
from vqmri.shapes import Latents

USE_DECAY = 0.99
"""Share of the average use that a step keeps; it decides about restarts only."""


@final
class CodebookLossQuantizer(MovedByData, Quantizer):
    """The codebook is a parameter with its own loss (van den Oord et al. 2017, eq. 3).

    loss = mean((sg[z_e] − e)²) + β mean((z_e − sg[e])²). The use of each code is counted, and a
    dead code restarts at a random token. All state is in parameters and buffers. The gradient is
    the optimiser's concern, under data parallelism too; counts and vectors chosen from data are
    the same on all ranks.

    embedding_dim: length of a codebook vector
    commitment_cost: β
    initialisation: how the first training batch makes the codebook
    mean_count: average use of each code, in tokens per step, (num_embeddings,)
    initialised: whether there has been a training batch, a scalar
    """

    mean_count: Tensor
    initialised: Tensor

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        *,
        commitment_cost: float,
        initialisation: Initialisation,
    ) -> None:
        super().__init__((num_embeddings,), ("",), embedding_dim, commitment_cost, initialisation)
        self.vectors = nn.Parameter(torch.zeros(num_embeddings, embedding_dim))
        self.register_buffer("mean_count", torch.zeros(num_embeddings))
        self.register_buffer("initialised", torch.tensor(False))

    @property
    def codebook(self) -> Tensor:
        return self.vectors

    def forward(self, latents: Latents) -> Quantized:
        with torch.autocast(latents.device.type, enabled=False):
            latents = latents.float()
            tokens = as_tokens(latents)
            if self.training:
                self._choose_vectors(tokens)
            codes = nearest(tokens, self.codebook)
            if self.training:
                self.update(codes)
            grid_codes = as_grid(codes, latents)
            quantized = self.decode([grid_codes])
            loss = pull(quantized, latents) + self.commitment_cost * pull(latents, quantized)
            return Quantized(straight_through(latents, quantized), [grid_codes], loss)

    @torch.no_grad()
    def _choose_vectors(self, tokens: Float[Tensor, "tokens dim"]) -> None:
        """Initialise or restart, before codes are chosen: gradients then belong to the vectors."""
        if not self.initialised:
            self.vectors.copy_(chosen_by_rank_0(self.start, tokens, self.num_embeddings))
            num_tokens = sum_over_ranks(torch.tensor(tokens.shape[0], device=tokens.device))
            self.mean_count.fill_(num_tokens / self.num_embeddings)
            self.initialised.fill_(True)
        dead = dead_codes(self.mean_count)
        if dead.any():
            self.vectors[dead] = chosen_by_rank_0(draw, tokens, int(dead.sum()))
            self.mean_count[dead] = self.mean_count.mean()

    @torch.no_grad()
    def follow(self, codes: Int[Tensor, " tokens"]) -> None:  # type: ignore[override]
        """Count the use of the codes."""
        counts = torch.bincount(codes, minlength=self.num_embeddings)
        self.mean_count.lerp_(sum_over_ranks(counts).float(), 1 - USE_DECAY)
