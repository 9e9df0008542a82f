"""Quantized latents to volume, from the top level down."""

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from vqmri.shapes import Features
from vqmri.vqvae.blocks import Up, blocks_of_scale, same


class LevelDecoder(nn.Module):
    """Take in one level's quantized latents and go up to where the next finer level joins.

    widths: channels at this level's scale, then at each scale on the way up; the last is the scale
    of the next finer level, or the number of volume channels when there is none.
    num_res_blocks: at each of these scales; the volume's own has none
    """

    def __init__(
        self,
        spatial_dims: int,
        embedding_dim: int,
        widths: Sequence[int],
        num_res_blocks: Sequence[int],
        *,
        from_above: bool,
        finest: bool,
    ) -> None:
        super().__init__()
        joined = embedding_dim + (widths[0] if from_above else 0)
        layers: list[nn.Module] = [same(spatial_dims, joined, widths[0])]
        layers += blocks_of_scale(spatial_dims, widths[0], num_res_blocks[0])
        for index, (before, after) in enumerate(pairwise(widths)):
            last = finest and index == len(widths) - 2
            layers.append(Up(spatial_dims, before, after, kernel=3 if last else 1))
            if not last:
                layers += blocks_of_scale(spatial_dims, after, num_res_blocks[index + 1])
        self.body = nn.Sequential(*layers)

    def forward(self, quantized: Features, above: Tensor | None) -> Tensor:
        joined = quantized if above is None else torch.cat([quantized, above], dim=1)
        return self.body(joined)
