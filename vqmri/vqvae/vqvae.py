"""VQ-VAE with one or more levels of codes."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn

from vqmri.quantizers import EMAQuantizer, Quantizer
from vqmri.shapes import Volumes
from vqmri.vqvae.blocks import same
from vqmri.vqvae.decoder import LevelDecoder
from vqmri.vqvae.encoder import Encoder


class Reconstruction(NamedTuple):
    """volumes (batch, channel, *space); codes, finest level first; quantizer_loss, a scalar."""

    volumes: Tensor
    codes: list[Tensor]
    quantizer_loss: Tensor


class VQVAE(nn.Module):
    """Volumes to codes and back (van den Oord et al. 2017; levels as in Razavi et al. 2019, §3.1).

    Level 0 is the finest, the last is the top. The decoder runs from the top down, and its state
    joins the encoder's features before the next finer level is quantized: finer codes are encoded
    *given* the coarser ones. One level is the same code with one step of that loop.

    spatial_dims: 2 or 3
    in_channels: channels of a volume
    channels: widths at ÷2, ÷4, …; each a multiple of 8
    downsamplings: of each level, finest first; powers of two up to 2^len(channels)
    num_embeddings: codebook size of each level
    """

    def __init__(
        self,
        *,
        spatial_dims: Literal[2, 3],
        in_channels: int,
        channels: Sequence[int],
        num_res_blocks: int,
        downsamplings: Sequence[int],
        num_embeddings: Sequence[int],
        embedding_dim: int,
        decay: float,
        commitment_cost: float,
    ) -> None:
        super().__init__()
        self.downsamplings = tuple(downsamplings)
        self.num_embeddings = tuple(num_embeddings)
        self.scales = [factor.bit_length() - 2 for factor in downsamplings]
        self.encoder = Encoder(spatial_dims, in_channels, channels, num_res_blocks)
        top = len(downsamplings) - 1
        self.to_latents = nn.ModuleList(
            same(spatial_dims, channels[s] * (1 if level == top else 2), embedding_dim, 1)
            for level, s in enumerate(self.scales)
        )
        self.quantizers = nn.ModuleList(
            EMAQuantizer(number, embedding_dim, decay=decay, commitment_cost=commitment_cost)
            for number in num_embeddings
        )
        widths = [in_channels, *channels]
        ends = [-1, *self.scales[:-1]]
        self.decoders = nn.ModuleList(
            LevelDecoder(
                spatial_dims,
                embedding_dim,
                widths[end + 1 : scale + 2][::-1],
                num_res_blocks,
                from_above=level != top,
                finest=level == 0,
            )
            for level, (scale, end) in enumerate(zip(self.scales, ends, strict=True))
        )

    def forward(self, volumes: Volumes) -> Reconstruction:
        features = self.encoder(volumes)
        state: Tensor | None = None
        codes: list[Tensor] = []
        losses: list[Tensor] = []
        for level in reversed(range(len(self.scales))):
            joined = features[self.scales[level]]
            if state is not None:
                joined = torch.cat([joined, state], dim=1)
            quantized = self.quantizers[level](self.to_latents[level](joined))
            codes.insert(0, quantized.codes)
            losses.append(quantized.loss)
            state = self.decoders[level](quantized.latents, state)
        assert state is not None
        return Reconstruction(state, codes, torch.stack(losses).sum())

    def encode(self, volumes: Volumes) -> list[Tensor]:
        """Codes of each level, finest first, each (batch, *grid). Call it in evaluation mode."""
        return self(volumes).codes

    def decode(self, codes: Sequence[Tensor]) -> Tensor:
        """Volumes of codes of all levels, finest first; not clipped to [0, 1]."""
        state: Tensor | None = None
        for level in reversed(range(len(self.scales))):
            quantizer = self.quantizers[level]
            assert isinstance(quantizer, Quantizer)
            state = self.decoders[level](quantizer.decode(codes[level]), state)
        assert state is not None
        return state
