"""Arguments of the prior."""

from collections.abc import Mapping, Sequence
from typing import Any

from vqmri.params import Optimisation, TrainPrior


def prior_arguments(
    params: TrainPrior,
    *,
    grids: Sequence[Sequence[int]],
    num_embeddings: Sequence[int],
    covariates: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """What `Prior(**arguments)` takes, as plain JSON."""
    return params.model_dump(exclude={*Optimisation.model_fields, "conditions"}) | {
        "grids": [list(grid) for grid in grids],
        "num_embeddings": list(num_embeddings),
        "covariates": [dict(covariate) for covariate in covariates],
    }
