"""The codebook that follows an exponential moving average of the encoder's outputs."""

from typing import final

import torch
from torch import Tensor

from vqmri.quantizers.base import (
    Quantized,
    Quantizer,
    as_grid,
    as_tokens,
    pull,
    straight_through,
)
from vqmri.quantizers.clusters import Initialisation
from vqmri.quantizers.ema_codebook import EMACodebook
from vqmri.quantizers.nearest import nearest
from vqmri.shapes import Latents


@final
class EMAQuantizer(Quantizer):
    """EMA codebook (van den Oord et al. 2017, appendix A.1; Razavi et al. 2019, §2.1).

    loss = β mean((z_e − sg[e])²); see EMACodebook for how the vectors move.

    embedding_dim: length of a codebook vector
    decay: γ, the share of the average that a step keeps
    commitment_cost: β
    initialisation: how the first training batch makes the codebook
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        *,
        decay: float,
        commitment_cost: float,
        initialisation: Initialisation,
    ) -> None:
        super().__init__((num_embeddings,), ("",), embedding_dim, commitment_cost, initialisation)
        self.ema = EMACodebook(num_embeddings, embedding_dim, decay=decay)

    @property
    def codebook(self) -> Tensor:
        return self.ema.vectors

    def forward(self, latents: Latents) -> Quantized:
        with torch.autocast(latents.device.type, enabled=False):
            latents = latents.float()
            tokens = as_tokens(latents)
            if self.training and not self.ema.initialised:
                self.ema.initialise(self.start, tokens)
            codes = nearest(tokens, self.codebook)
            grid_codes = as_grid(codes, latents)
            quantized = self.decode([grid_codes])
            if self.training:
                self.ema.update(tokens, codes)
            loss = self.commitment_cost * pull(latents, quantized)
            return Quantized(straight_through(latents, quantized), [grid_codes], loss)
