"""VQ-VAE with one or more levels of codes."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vqmri.convolution import without_tf32
from vqmri.quantizers import Quantized, Quantizer, build_quantizer
from vqmri.shapes import Volumes
from vqmri.vqvae.blocks import Residual, same
from vqmri.vqvae.decoder import LevelDecoder
from vqmri.vqvae.encoder import Encoder
from vqmri.vqvae.tiles import Tile, core, core_within, covered, tiles, weights

Quantize = Callable[[Quantizer, Tensor], Quantized]


class Reconstruction(NamedTuple):
    """What the decoder says, and of which codes.

    outputs: (batch, in_channels + num_classes, *space): intensities, then logits of the label map
    codes: one per map, finest level first; quantizer_loss: a scalar
    """

    outputs: Tensor
    codes: list[Tensor]
    quantizer_loss: Tensor


class VQVAE(nn.Module):
    """Volumes to codes and back (van den Oord et al. 2017; levels as in Razavi et al. 2019, §3.1).

    Level 0 is the finest, the last is the top. The decoder runs from the top down, and its state
    joins the encoder's features before the next finer level is quantized: finer codes are encoded
    *given* the coarser ones. One level is the same code with one step of that loop.

    spatial_dims: 2 or 3
    in_channels: channels of a volume that are images
    num_classes: of the label map that is a volume's last channel; 0 when there is none
    channels: widths at ÷2, ÷4, …; each a multiple of 8
    num_res_blocks: at each of these scales, in the encoder and again in the decoder
    downsamplings: of each level, finest first; powers of two up to 2^len(channels)
    num_embeddings: codebook size of each level
    embedding_dim: length of a codebook vector, at all levels
    quantizer: arguments of `build_quantizer` but for the sizes
    patch: voxels along each axis of what it is trained on, multiples of the largest downsampling;
        in evaluation mode, larger volumes are then done in overlapping tiles of this size. None
        where it is trained on whole volumes

    The attributes `map_names`, `downsamplings` and `num_embeddings` have one entry per *map*, which
    is more than per level where the quantizer has a gain.
    """

    def __init__(
        self,
        *,
        spatial_dims: Literal[2, 3],
        in_channels: int,
        channels: Sequence[int],
        num_res_blocks: Sequence[int],
        downsamplings: Sequence[int],
        num_embeddings: Sequence[int],
        embedding_dim: int,
        quantizer: Mapping[str, Any],
        num_classes: int = 0,
        patch: Sequence[int] | None = None,
    ) -> None:
        super().__init__()
        self.in_channels, self.num_classes = in_channels, num_classes
        self.patch = patch
        self.scales = [factor.bit_length() - 2 for factor in downsamplings]
        ends = in_channels + num_classes
        self.encoder = Encoder(spatial_dims, ends, channels, num_res_blocks)
        top = len(downsamplings) - 1
        self.to_latents = nn.ModuleList(
            same(spatial_dims, channels[s] * (1 if level == top else 2), embedding_dim, 1)
            for level, s in enumerate(self.scales)
        )
        quantizers = [
            build_quantizer(num_embeddings=number, embedding_dim=embedding_dim, **quantizer)
            for number in num_embeddings
        ]
        self.quantizers = nn.ModuleList(quantizers)
        widths, blocks = [ends, *channels], [0, *num_res_blocks]
        stops = [-1, *self.scales[:-1]]
        self.decoders = nn.ModuleList(
            LevelDecoder(
                spatial_dims,
                embedding_dim,
                widths[stop + 1 : scale + 2][::-1],
                blocks[stop + 1 : scale + 2][::-1],
                from_above=level != top,
                finest=level == 0,
            )
            for level, (scale, stop) in enumerate(zip(self.scales, stops, strict=True))
        )
        self.map_names = tuple(
            f"level_{level}{name}" for level, q in enumerate(quantizers) for name in q.map_names
        )
        self.num_embeddings = tuple(size for q in quantizers for size in q.map_sizes)
        self.downsamplings = tuple(
            factor for factor, q in zip(downsamplings, quantizers, strict=True) for _ in q.map_sizes
        )

    def recompute_activations(self) -> None:
        """Keep only the inputs of residual blocks for the backward pass: less memory, more time."""
        for module in self.modules():
            if isinstance(module, Residual):
                module.recompute = True

    def forward(self, volumes: Volumes) -> Reconstruction:
        """Encode, quantize and decode volumes (batch, in_channels and maybe labels, *space)."""
        return self.reconstruct(volumes, _as_in_training)

    def reconstruct(self, volumes: Volumes, quantize: Quantize) -> Reconstruction:
        """The same with another way to choose the codes: `quantize(quantizer, latents)`."""
        if self._in_tiles(volumes.shape[2:]):
            codes = self._encode_tiles(volumes, quantize)
            return Reconstruction(self.decode(codes), codes, volumes.new_zeros(()))
        finest, state, codes, losses = self._quantize(volumes, quantize)
        outputs = self.decoders[0](finest, state)
        return Reconstruction(outputs, codes, torch.stack(losses).sum())

    @without_tf32()
    def encode(self, volumes: Volumes) -> list[Tensor]:
        """Each map of codes, finest first, (batch, *grid). Call it in evaluation mode."""
        if self._in_tiles(volumes.shape[2:]):
            return self._encode_tiles(volumes, _as_in_training)
        return self._quantize(volumes, _as_in_training)[2]

    def _quantize(
        self, volumes: Volumes, quantize: Quantize
    ) -> tuple[Tensor, Tensor | None, list[Tensor], list[Tensor]]:
        """Down the levels: the finest quantized latents, the state they join, codes and losses."""
        features = self.encoder(self._one_hot(volumes))
        state: Tensor | None = None
        codes: list[Tensor] = []
        losses: list[Tensor] = []
        for level in reversed(range(len(self.scales))):
            joined = features[self.scales[level]]
            if state is not None:
                joined = torch.cat([joined, state], dim=1)
            quantized = quantize(self._quantizer(level), self.to_latents[level](joined))
            codes = quantized.codes + codes
            losses.append(quantized.loss)
            if level > 0:
                state = self.decoders[level](quantized.latents, state)
        return quantized.latents, state, codes, losses

    def decode(self, codes: Sequence[Tensor]) -> Tensor:
        """The decoder's outputs, (batch, in_channels + num_classes, *space).

        codes: all maps, finest first, each (batch, *grid), as `encode` gives them
        """
        space = [n * self.downsamplings[0] for n in codes[0].shape[1:]]
        return self._decode_tiles(codes, space) if self._in_tiles(space) else self._decode(codes)

    def _decode(self, codes: Sequence[Tensor]) -> Tensor:
        state: Tensor | None = None
        left = list(codes)
        for level in reversed(range(len(self.scales))):
            quantizer = self._quantizer(level)
            number = len(quantizer.map_sizes)
            left, own = left[:-number], left[-number:]
            state = self.decoders[level](quantizer.decode(own), state)
        assert state is not None
        return state

    def _in_tiles(self, space: Sequence[int]) -> bool:
        if self.patch is None or self.training:
            return False
        return any(n > side for n, side in zip(space, self.patch, strict=True))

    def _tiles(self, space: Sequence[int]) -> list[Tile]:
        assert self.patch is not None
        return tiles(space, self.patch, max(self.downsamplings))

    def _encode_tiles(self, volumes: Volumes, quantize: Quantize) -> list[Tensor]:
        """Each code is that of the tile in whose core it lies."""
        maps: list[Tensor] = []
        for tile in self._tiles(volumes.shape[2:]):
            codes = self._quantize(volumes[covered(tile)], quantize)[2]
            if not maps:
                grids = [[n // factor for n in volumes.shape[2:]] for factor in self.downsamplings]
                maps = [
                    c.new_empty(len(volumes), *grid) for c, grid in zip(codes, grids, strict=True)
                ]
            for whole, part, factor in zip(maps, codes, self.downsamplings, strict=True):
                whole[core(tile, factor)] = part[core_within(tile, factor)]
        return maps

    def _decode_tiles(self, codes: Sequence[Tensor], space: Sequence[int]) -> Tensor:
        """Where tiles overlap, their outputs pass over into one another in a straight line."""
        number = self.in_channels + self.num_classes
        outputs = torch.zeros(len(codes[0]), number, *space, device=codes[0].device)
        all_tiles = self._tiles(space)
        for tile, weight in zip(all_tiles, weights(all_tiles), strict=True):
            parts = [
                values[covered(tile, factor)]
                for values, factor in zip(codes, self.downsamplings, strict=True)
            ]
            outputs[covered(tile)] += weight.to(outputs.device) * self._decode(parts)
        return outputs

    def to_volumes(
        self, outputs: Float[Tensor, "batch out *space"]
    ) -> Float[Tensor, "batch channel *space"]:
        """Outputs as volumes: intensities clipped to [0, 1], then the likeliest label if any."""
        outputs = outputs.float()
        image = outputs[:, : self.in_channels].clamp(0, 1)
        if not self.num_classes:
            return image
        labels = outputs[:, self.in_channels :].argmax(dim=1, keepdim=True)
        return torch.cat([image, labels.to(image.dtype)], dim=1)

    def _one_hot(self, volumes: Volumes) -> Tensor:
        if not self.num_classes:
            return volumes
        image, labels = volumes[:, : self.in_channels], volumes[:, self.in_channels]
        hot = image.new_zeros(len(labels), self.num_classes, *labels.shape[1:])
        hot.scatter_(1, labels.long().unsqueeze(1), 1.0)
        return torch.cat([image, hot], dim=1)

    def _quantizer(self, level: int) -> Quantizer:
        quantizer = self.quantizers[level]
        assert isinstance(quantizer, Quantizer)
        return quantizer


def _as_in_training(quantizer: Quantizer, latents: Tensor) -> Quantized:
    return quantizer(latents)
