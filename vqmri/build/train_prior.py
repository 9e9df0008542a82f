"""Arguments of the prior."""

from collections.abc import Sequence
from typing import Any

from vqmri.params import TrainPrior


def prior_arguments(
    params: TrainPrior, *, grids: Sequence[Sequence[int]], num_embeddings: Sequence[int]
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
    }
