"""Small trained-looking models, published as a stage would publish them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tests.prior.cases import AGE, SITE
from vqmri.outputs import Identity, Manifest
from vqmri.prior import Prior
from vqmri.prior.covariates import Covariate, to_json
from vqmri.training.model_folder import load_model, write_model
from vqmri.vqvae import VQVAE

COVARIATES: list[Covariate] = [AGE, SITE]

VQVAE_ARGUMENTS: dict[str, Any] = {
    "spatial_dims": 2,
    "in_channels": 1,
    "num_classes": 3,
    "channels": [8, 8],
    "num_res_blocks": [1, 1],
    "downsamplings": [2, 4],
    "num_embeddings": [8, 6],
    "embedding_dim": 4,
    "quantizer": {
        "kind": "projected", "decay": 0.9, "commitment_cost": 0.25, "projection_cost": 0.1,
        "num_gains": 3, "initialisation": "data",
    },
}  # fmt: skip
SPACE = (8, 12)
GRIDS = [[4, 6], [4, 6], [2, 3], [2, 3]]
SIZES = [3, 8, 3, 6]

PRIOR_ARGUMENTS: dict[str, Any] = {
    "grids": GRIDS,
    "num_embeddings": SIZES,
    "channels": 8,
    "num_layers": 3,
    "kernel": 3,
    "radius": 2,
    "dropout": 0.2,
    "num_attention": 1,
    "heads": 2,
    "covariates": to_json(COVARIATES),
    "condition_dropout": 0.1,
}


def volumes(batch: int = 6) -> Tensor:
    """An image and a label map."""
    labels = torch.randint(3, (batch, 1, *SPACE)).float()
    return torch.cat([torch.rand(batch, 1, *SPACE), labels], dim=1)


def started_vqvae(**changes: Any) -> VQVAE:
    """After one training batch, so that there are codebooks."""
    model = VQVAE(**(VQVAE_ARGUMENTS | changes))
    model(volumes())
    return model


def scattered_prior(**changes: Any) -> Prior:
    """With weights so large that draws depend on all that they are conditioned on."""
    model = Prior(**(PRIOR_ARGUMENTS | changes))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return model


def publish(
    folder: Path, model: nn.Module, arguments: Mapping[str, Any], about: Mapping[str, Any]
) -> Path:
    folder.mkdir()
    write_model(folder, model, arguments, about)
    seal(folder)
    return folder


def seal(folder: Path) -> None:
    Manifest.of(folder, Identity("train", 1, {}, {})).write(folder)


def publish_both(root: Path) -> tuple[Path, Path]:
    """A VQ-VAE and a prior over its codes."""
    vqvae = publish(root / "vqvae", started_vqvae(), VQVAE_ARGUMENTS, {"shape": [2, *SPACE]})
    weights = load_model(vqvae, VQVAE)[1]["weights"]
    prior = publish(root / "prior", scattered_prior(), PRIOR_ARGUMENTS, {"vqvae_weights": weights})
    return vqvae, prior
