"""Arguments of the prior."""

from collections.abc import Mapping, Sequence
from typing import Any

from vqmri.params import TrainPrior


def prior_arguments(
    params: TrainPrior,
    *,
    grids: Sequence[Sequence[int]],
    num_embeddings: Sequence[int],
    covariates: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """What `Prior(**arguments)` takes, as plain JSON."""
    return {
        "grids": [list(grid) for grid in grids],
        "num_embeddings": list(num_embeddings),
        "channels": params.channels,
        "num_layers": params.num_layers,
        "kernel": params.kernel,
        "radius": params.radius,
        "dropout": params.dropout,
        "num_attention": params.num_attention,
        "heads": params.heads,
        "covariates": [dict(covariate) for covariate in covariates],
        "condition_dropout": params.condition_dropout,
    }
