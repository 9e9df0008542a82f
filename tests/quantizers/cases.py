"""The quantizers that every contract test runs on, small."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from vqmri.quantizers import Initialisation, Quantizer, build_quantizer

NAMES = ["codebook_loss", "ema", "projected", "projected_real"]
INITIALISATIONS: list[Initialisation] = ["data", "kmeans"]
COMMITMENT_COST = 0.3


def build(
    name: str,
    number: int = 8,
    dim: int = 4,
    *,
    decay: float = 0.9,
    initialisation: Initialisation = "data",
    projection_cost: float = 0.0,
) -> Quantizer:
    options: dict[str, Any] = {
        "num_embeddings": number,
        "embedding_dim": dim,
        "commitment_cost": COMMITMENT_COST,
        "initialisation": initialisation,
    }
    if name == "codebook_loss":
        return build_quantizer("codebook_loss", **options)
    if name == "ema":
        return build_quantizer("ema", **options, decay=decay)
    options["num_gains"] = {"projected": 4, "projected_real": None}[name]
    return build_quantizer("projected", **options, decay=decay, projection_cost=projection_cost)


def started(name: str, number: int = 8, *, projection_cost: float = 0.0) -> Quantizer:
    """After one training batch, in evaluation mode."""
    module = build(name, number, projection_cost=projection_cost)
    module(torch.randn(3, 4, 6, 6))
    return module.eval()


def train(module: Quantizer, batches: Sequence[Tensor]) -> None:
    """One step per batch, with an optimiser where gradients move the codebook."""
    module.train()
    parameters = list(module.parameters())
    optimiser = torch.optim.Adam(parameters, lr=0.02) if parameters else None
    for batch in batches:
        loss = module(batch).loss
        if optimiser is not None:
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
