"""Priors small enough to be tested at all pairs of positions, in float64 with random weights."""

from collections.abc import Sequence
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from vqmri.prior import PixelCNN, Prior
from vqmri.prior.covariates import Categorical, Continuous, Covariate, to_json

AGE = Continuous("age", minimum=20.0, maximum=80.0, mean=50.0, std=15.0)
SITE = Categorical("site", ("a", "b", "c"))

Module = TypeVar("Module", bound=nn.Module)


def scattered(module: Module, std: float = 0.5) -> Module:
    """With weights so large that the net is far from linear and nothing cancels."""
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=std)
    return module.double().eval()


def pixelcnn(grid: Sequence[int], *, std: float = 0.5, **changes: int) -> PixelCNN:
    arguments = {"num_embeddings": 5, "channels": 6, "num_layers": 4, "kernel": 3, "radius": 2}
    return scattered(PixelCNN(grid=grid, dropout=0.0, **(arguments | changes)), std)


def prior(
    grids: Sequence[Sequence[int]],
    num_embeddings: Sequence[int],
    *,
    covariates: Sequence[Covariate] = (),
    std: float = 0.5,
    **changes: Any,
) -> Prior:
    arguments = {"channels": 6, "num_layers": 3, "kernel": 3, "radius": 2, "dropout": 0.0} | changes
    module = Prior(
        grids=grids, num_embeddings=num_embeddings, covariates=to_json(covariates), **arguments
    )
    return scattered(module, std)


def net(module: Prior, index: int) -> PixelCNN:
    return cast(PixelCNN, module.maps[index])


def random_maps(module: Prior, batch: int) -> list[Tensor]:
    """Codes, and for unquantised gains real numbers."""
    return [
        torch.randint(number, (batch, *grid))
        if number
        else 1 + 0.3 * torch.randn(batch, *grid, dtype=torch.float64)
        for grid, number in zip(module.grids, module.num_embeddings, strict=True)
    ]
