"""Volume to features, one set per scale."""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

from vqmri.shapes import Volumes
from vqmri.vqvae.blocks import Down, blocks_of_scale


class Encoder(nn.Module):
    """Halve the grid once per entry of `channels` and keep the features of every scale."""

    def __init__(
        self,
        spatial_dims: int,
        in_channels: int,
        channels: Sequence[int],
        num_res_blocks: Sequence[int],
    ) -> None:
        super().__init__()
        widths = [in_channels, *channels]
        self.scales = nn.ModuleList(
            nn.Sequential(
                Down(spatial_dims, before, after),
                *blocks_of_scale(spatial_dims, after, number),
            )
            for (before, after), number in zip(pairwise(widths), num_res_blocks, strict=True)
        )

    def forward(self, volumes: Volumes) -> list[Tensor]:
        """Features at ÷2, ÷4, …: item i is (batch, channels[i], *(space / 2^(i+1)))."""
        features = []
        x = volumes
        for scale in self.scales:
            x = scale(x)
            features.append(x)
        return features
