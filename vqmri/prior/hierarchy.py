"""The prior over all maps."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Num
from torch import Tensor, nn

from vqmri.prior import covariates as known
from vqmri.prior.conditioning import MapAbove
from vqmri.prior.gain import GaussianGain
from vqmri.prior.objective import nats
from vqmri.prior.pixelcnn import PixelCNN

CONDITION_LAYERS = 4
"""Convolutions over a map above before it conditions a finer one."""


class Prior(nn.Module):
    """p(top) · p(next | top) · …, one PixelCNN per map (Razavi et al. 2019, §3.2).

    Each map below the top is conditioned on all maps above it, and each on the covariates. The top
    has the self-attention. A level with quantised gains has two maps, so p(codes) · p(gains |
    codes) is exact; unquantised gains have no PixelCNN but a Gaussian given their code.

    grids: positions per axis of each map, finest first; each a multiple of the next coarser one
    num_embeddings: values of each map, 0 for an unquantised gain
    channels, num_layers, kernel, radius, dropout, heads: of each PixelCNN
    num_attention: self-attentions of the top map's PixelCNN
    covariates: what the prior is conditioned on, as `covariates.to_json` writes it
    condition_dropout: share of the training items whose covariates are hidden
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
        num_attention: int = 0,
        heads: int = 1,
        covariates: Sequence[Mapping[str, Any]] = (),
        condition_dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.grids = tuple(tuple(grid) for grid in grids)
        self.num_embeddings = tuple(num_embeddings)
        self.covariates = known.from_json(covariates)
        self.condition_dropout = condition_dropout
        maps = range(len(self.grids))
        top = maps[-1]
        self.maps = nn.ModuleList(
            PixelCNN(
                num_embeddings=num_embeddings[index],
                grid=self.grids[index],
                channels=channels,
                num_layers=num_layers,
                kernel=kernel,
                radius=radius,
                dropout=dropout,
                condition_channels=channels * (top - index + bool(self.covariates)),
                num_attention=num_attention if index == top else 0,
                heads=heads,
            )
            if num_embeddings[index]
            else GaussianGain(num_embeddings[index + 1])
            for index in maps
        )
        self.above = nn.ModuleList(
            nn.ModuleList(
                MapAbove(
                    num_embeddings[other],
                    channels,
                    [f // c for f, c in zip(self.grids[index], self.grids[other], strict=True)],
                    CONDITION_LAYERS,
                )
                for other in maps[index + 1 :]
                if num_embeddings[index]
            )
            for index in maps
        )
        self.subjects = nn.ModuleList(
            known.CovariateEmbedding(self.covariates, channels)
            for number in num_embeddings
            if self.covariates and number
        )

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(self.parameters()).device

    def unknown(self, batch: int) -> known.Rows:
        """Covariates of `batch` items of which nothing is known."""
        return torch.full((batch, len(self.covariates)), torch.nan, device=self.device)

    def condition(self, index: int, values: Sequence[Tensor], rows: known.Rows) -> Tensor | None:
        """What map `index` knows: the maps above it and the covariates; None if there is neither.

        values: of all maps, (batch, *grid), of which only those above `index` are read
        Returns (batch, channel, *grid), on the grid of the map.
        """
        above = self.above[index]
        assert isinstance(above, nn.ModuleList)
        parts = [module(upper) for module, upper in zip(above, values[index + 1 :], strict=False)]
        if self.covariates:
            embedding = self.subjects[sum(number > 0 for number in self.num_embeddings[:index])]
            vector = embedding(rows)
            ones = (1,) * len(self.grids[index])
            parts.append(vector.reshape(*vector.shape, *ones).expand(-1, -1, *self.grids[index]))
        return torch.cat(parts, dim=1) if parts else None

    def fit_gains(self, values: Sequence[Num[Tensor, "item ..."]]) -> None:
        """Fit the Gaussians of unquantised gains to the training items' maps."""
        for index, model in enumerate(self.maps):
            if isinstance(model, GaussianGain):
                model.fit(values[index], values[index + 1])

    def forward(
        self,
        values: Sequence[Num[Tensor, "batch ..."]],
        rows: known.Rows | None = None,
        temperature: float = 1.0,
    ) -> list[Tensor]:
        """−ln p of every value given what is known before it, one (batch, *grid) per map.

        rows: covariates of the items; None for nothing known. In training some are hidden.
        temperature: divides the logits of codes, as in a draw
        """
        rows = self.unknown(len(values[0])) if rows is None else rows
        if self.training and self.covariates:
            rows = known.hide(rows, self.condition_dropout)
        found = []
        for index, model in enumerate(self.maps):
            if isinstance(model, GaussianGain):
                found.append(model.nats(values[index], values[index + 1]))
            else:
                logits = self.logits(index, values, rows) / temperature
                found.append(nats(logits, values[index]))
        return found

    def logits(
        self, index: int, values: Sequence[Num[Tensor, "batch ..."]], rows: known.Rows
    ) -> Tensor:
        """Logits of map `index`, one of codes: (batch, num_embeddings, *grid)."""
        return self.maps[index](values[index], self.condition(index, values, rows))
