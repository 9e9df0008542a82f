"""This project's quantizers, each in the network of a preset."""

import json
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from benchmarks.contender import Contender, Reconstructed
from vqmri.build.train_vqvae import vqvae_arguments
from vqmri.params import TrainVQVAE
from vqmri.training.device import mixed_precision
from vqmri.training.loop import MAX_GRADIENT_NORM
from vqmri.training.optim import adamw, warmup_cosine
from vqmri.vqvae import VQVAE, objective

QUANTIZERS: dict[str, tuple[int, dict[str, Any]]] = {
    "codebook_loss K=256": (256, {"kind": "codebook_loss"}),
    "ema K=256": (256, {"kind": "ema"}),
    "ema K=2048": (2048, {"kind": "ema"}),
    "ema K=256 kmeans": (256, {"kind": "ema", "initialisation": "kmeans"}),
    "projected K=256 gains=8": (256, {"kind": "projected", "num_gains": 8}),
    "projected K=256 real gain": (256, {"kind": "projected", "num_gains": None}),
    "projected K=32 gains=8": (32, {"kind": "projected", "num_gains": 8}),
}
"""Name to codebook size and what differs from the preset's quantizer."""


def build_own(
    name: str, settings: TrainVQVAE, *, spatial_dims: int, steps: int, device: torch.device
) -> Contender:
    """The preset's VQ-VAE for grey values alone, with another quantizer.

    It is trained as the stage train_vqvae does, with the preset's warm-up scaled to `steps`.
    """
    number, changes = QUANTIZERS[name]
    options = quantizer_options(settings.quantizer.model_dump(mode="json"), changes)
    arguments = vqvae_arguments(settings, spatial_dims=spatial_dims, in_channels=1, num_classes=0)
    arguments |= {"num_embeddings": [number], "quantizer": options}
    warmup = round(settings.warmup * steps / settings.steps)
    return own_contender(
        name,
        arguments,
        settings,
        rate=warmup_cosine(settings.learning_rate, warmup, steps),
        schedule=f"warm-up of {warmup} steps and cosine to 0",
        device=device,
    )


def own_contender(
    name: str,
    arguments: Mapping[str, Any],
    settings: TrainVQVAE,
    *,
    rate: Callable[[int], float],
    schedule: str,
    device: torch.device,
) -> Contender:
    """VQVAE(**arguments), trained as the stage train_vqvae does but for the learning rate.

    schedule: that of `rate` in words
    """
    model = VQVAE(**arguments).to(device)

    def loss(volumes: Tensor) -> Tensor:
        with mixed_precision(device):
            reconstruction = model(volumes)
        return objective(reconstruction, volumes)["loss"]

    def reconstruct(volumes: Tensor) -> Reconstructed:
        found = model(volumes)
        return Reconstructed(model.to_volumes(found.outputs), found.codes)

    return Contender(
        name=name,
        recipe=f"squared error + quantizer loss, AdamW {settings.learning_rate}, {schedule}, "
        f"trained in {_precision(device)}, {json.dumps(arguments['quantizer'])}",
        model=model,
        optimiser=adamw(model, settings.weight_decay),
        rate=rate,
        loss=loss,
        reconstruct=reconstruct,
        map_names=model.map_names,
        num_embeddings=model.num_embeddings,
        downsamplings=model.downsamplings,
        gradient_norm=MAX_GRADIENT_NORM,
    )


def quantizer_options(preset: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The preset's quantizer, started from data, with `changes`.

    The projected kind's further cost, which the preset lacks, gets the weight of the commitment:
    both act on the encoder.
    """
    options = {**preset, "initialisation": "data", **changes}
    if options["kind"] == "codebook_loss":
        del options["decay"]
    if options["kind"] == "projected":
        options["projection_cost"] = options["commitment_cost"]
    return options


def _precision(device: torch.device) -> str:
    with mixed_precision(device):
        enabled = torch.is_autocast_enabled(device.type)
    return "bfloat16 autocast" if enabled else "float32"
