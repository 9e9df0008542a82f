"""Latents projected onto the line of their codebook vector."""

from collections.abc import Sequence
from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from vqmri.errors import InputError
from vqmri.quantizers.base import (
    Quantized,
    Quantizer,
    as_grid,
    as_tokens,
    look_up,
    pull,
    straight_through,
)
from vqmri.quantizers.clusters import Initialisation, quantiles
from vqmri.quantizers.ema_codebook import EMACodebook
from vqmri.quantizers.nearest import nearest
from vqmri.shapes import Latents

SMALLEST_SQUARED_NORM = 1e-12
"""A vector with a smaller ‖e‖² has no direction to project on."""


@final
class ProjectedQuantizer(Quantizer):
    """The decoder sees z̄ = g e_k, with e_k the nearest vector and g = ⟨z_e, e_k⟩ / ‖e_k‖².

    After niicovila/VQ-VAE-Extension, with the projection over the channel axis at each position.
    The gain g is a real number and adds rate, so it is a map of codes of its own, before the map
    of k: quantized to the nearest of `num_gains` scalars, which all codes share, or left real.

    loss = commitment_cost mean((z_e − sg[z̄])²) + projection_cost mean((g e_k − sg[e_k])²), where
    the second term has the gain before its quantization, so that its gradient reaches z_e. Vectors
    and scalars follow moving averages, see EMACodebook.

    embedding_dim: length of a codebook vector
    decay: γ, the share of the averages that a step keeps
    num_gains: number of scalars; None leaves the gain real
    initialisation: how the first training batch makes the codebook; the scalars start at quantiles
        of its gains

    Raises ValueError for a `num_gains` below 1, and InputError in the first training step where a
    starting vector is zero.
    """

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        *,
        decay: float,
        commitment_cost: float,
        projection_cost: float,
        num_gains: int | None,
        initialisation: Initialisation,
    ) -> None:
        if num_gains is not None and num_gains < 1:
            raise ValueError(f"num_gains is {num_gains}; allowed: at least 1, or None for real")
        sizes, names = (num_gains or 0, num_embeddings), ("_gain", "")
        super().__init__(sizes, names, embedding_dim, commitment_cost, initialisation)
        self.projection_cost = projection_cost
        self.ema = EMACodebook(num_embeddings, embedding_dim, decay=decay)
        self.gain_ema = None if num_gains is None else EMACodebook(num_gains, 1, decay=decay)

    @property
    def codebook(self) -> Tensor:
        return self.ema.vectors

    def forward(self, latents: Latents) -> Quantized:
        with torch.autocast(latents.device.type, enabled=False):
            latents = latents.float()
            tokens = as_tokens(latents)
            if self.training and not self.ema.initialised:
                self._initialise(tokens)
            codes = nearest(tokens, self.codebook)
            grid_codes = as_grid(codes, latents)
            vectors = look_up(self.codebook, grid_codes)
            gains = projection_gains(latents, vectors)
            gain_codes, quantized_gains = self._quantize_gains(gains)
            if self.training:
                self.ema.update(tokens, codes)
            quantized = quantized_gains * vectors
            loss = self.commitment_cost * pull(latents, quantized)
            loss = loss + self.projection_cost * pull(gains * vectors, vectors)
            latents = straight_through(latents, quantized)
            return Quantized(latents, [gain_codes, grid_codes], loss)

    def decode(self, codes: Sequence[Tensor]) -> Latents:
        """Latents of [gains, codes], each (batch, *grid); a gain is a value where it is real.

        Raises ValueError where values are given for codes, or codes for values.
        """
        gains, indices = codes
        if gains.is_floating_point() != (self.gain_ema is None):
            wanted = "real values" if self.gain_ema is None else "integer codes"
            raise ValueError(f"the gains of this quantizer are {wanted}, not {gains.dtype}")
        vectors = look_up(self.codebook, indices)
        if self.gain_ema is None:
            return gains.unsqueeze(1) * vectors
        return look_up(self.gain_ema.vectors, gains) * vectors

    def _initialise(self, tokens: Float[Tensor, "tokens dim"]) -> None:
        self.ema.initialise(self.start, tokens)
        # after the broadcast, so that all ranks raise and none waits for another
        num_zero = int((self.codebook.square().sum(dim=1) < SMALLEST_SQUARED_NORM).sum())
        if num_zero:
            self.ema.initialised.fill_(False)
            raise InputError(
                f"projected quantizer: {num_zero} of {self.num_embeddings} codebook vectors "
                "taken from the first training batch have length 0, and nothing can be projected "
                "on them. The latents are zero at some positions. Let the layer before the "
                "quantizer have a bias and no rectifier, or take the quantizer kind 'ema' or "
                "'codebook_loss'."
            )

    def _quantize_gains(
        self, gains: Float[Tensor, "batch 1 *grid"]
    ) -> tuple[Tensor, Float[Tensor, "batch 1 *grid"]]:
        """The map of gains, as codes or real, and the gains that it stands for."""
        gains = gains.detach()
        if self.gain_ema is None:
            return gains.squeeze(1), gains
        tokens = as_tokens(gains)
        if self.training and not self.gain_ema.initialised:
            self.gain_ema.initialise(quantiles, tokens)
        codes = nearest(tokens, self.gain_ema.vectors)
        grid_codes = as_grid(codes, gains)
        quantized = look_up(self.gain_ema.vectors, grid_codes)
        if self.training:
            self.gain_ema.update(tokens, codes)
        return grid_codes, quantized


def projection_gains(latents: Latents, vectors: Latents) -> Float[Tensor, "batch 1 *grid"]:
    """g = ⟨z, e⟩ / ‖e‖² over the channel axis; 0 where e is zero."""
    squared_norms = vectors.square().sum(dim=1, keepdim=True)
    products = (latents * vectors).sum(dim=1, keepdim=True)
    return products / squared_norms.clamp(min=SMALLEST_SQUARED_NORM)
