"""The prior over all levels of codes."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vqmri.prior.conditioning import LevelAbove
from vqmri.prior.pixelcnn import PixelCNN

CONDITION_LAYERS = 2
"""Convolutions over a coarser level's codes before they condition a finer one."""


class Prior(nn.Module):
    """p(top) · p(next | top) · …, one PixelCNN per level (Razavi et al. 2019, §3.2).

    Each level below the top is conditioned on all levels above it. Level 0 is the finest; with one
    level this is a single unconditional PixelCNN.

    grids: positions per axis of each level, finest first; each a multiple of the next coarser one
    """

    def __init__(
        self,
        *,
        grids: Sequence[Sequence[int]],
        num_embeddings: Sequence[int],
        channels: int,
        num_layers: int,
        kernel: int,
        radius: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.grids = tuple(tuple(grid) for grid in grids)
        self.num_embeddings = tuple(num_embeddings)
        levels = range(len(self.grids))
        self.pixelcnns = nn.ModuleList(
            PixelCNN(
                num_embeddings=num_embeddings[level],
                grid=self.grids[level],
                channels=channels,
                num_layers=num_layers,
                kernel=kernel,
                radius=radius,
                dropout=dropout,
                condition_channels=channels * (len(self.grids) - 1 - level),
            )
            for level in levels
        )
        self.above = nn.ModuleList(
            nn.ModuleList(
                LevelAbove(
                    num_embeddings[other],
                    channels,
                    [f // c for f, c in zip(self.grids[level], self.grids[other], strict=True)],
                    CONDITION_LAYERS,
                )
                for other in levels[level + 1 :]
            )
            for level in levels
        )

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    def condition(self, level: int, codes: Sequence[Tensor]) -> Tensor | None:
        """Conditioning map of `level` from the codes of all levels above it; None for the top."""
        above = self.above[level]
        assert isinstance(above, nn.ModuleList)
        if len(above) == 0:
            return None
        pairs = zip(above, codes[level + 1 :], strict=True)
        return torch.cat([module(coarser) for module, coarser in pairs], dim=1)

    def forward(self, codes: Sequence[Tensor]) -> list[Tensor]:
        """Logits of each level, finest first: (batch, num_embeddings, *grid)."""
        return [
            pixelcnn(codes[level], self.condition(level, codes))
            for level, pixelcnn in enumerate(self.pixelcnns)
        ]
