"""This project's quantizers, each in the network of a preset."""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from benchmarks.contender import Contender, Reconstructed, Vary, nothing
from vqmri.build.train_vqvae import augmentation_arguments, vqvae_arguments
from vqmri.params import TrainVQVAE
from vqmri.training.augment import Augmentation, cut
from vqmri.training.autoencoding import Autoencoding
from vqmri.training.average import averaged
from vqmri.training.device import mixed_precision
from vqmri.training.loop import MAX_GRADIENT_NORM
from vqmri.training.optim import Muon, warmup_cosine
from vqmri.vqvae import VQVAE

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
    name: str,
    settings: TrainVQVAE,
    *,
    spacing: Sequence[float],
    steps: int,
    device: torch.device,
) -> Contender:
    """The preset's VQ-VAE for grey values alone, with another quantizer.

    It is trained as the stage train_vqvae does, with the preset's warm-up scaled to `steps`.
    """
    number, changes = QUANTIZERS[name]
    options = quantizer_options(settings.quantizer.model_dump(mode="json"), changes)
    arguments = vqvae_arguments(settings, spatial_dims=len(spacing), in_channels=1, num_classes=0)
    arguments |= {"num_embeddings": [number], "quantizer": options}
    warmup = round(settings.warmup * steps / settings.steps)
    return own_contender(
        name,
        arguments,
        settings,
        rate=warmup_cosine(settings.learning_rate, warmup, steps),
        schedule=f"warm-up of {warmup} steps and cosine to 0",
        spacing=spacing,
        device=device,
    )


def own_contender(
    name: str,
    arguments: Mapping[str, Any],
    settings: TrainVQVAE,
    *,
    rate: Callable[[int], float],
    schedule: str,
    spacing: Sequence[float],
    device: torch.device,
) -> Contender:
    """VQVAE(**arguments), trained as the stage train_vqvae does but for the learning rate.

    Left out is what changes the time and the memory alone: micro_batch, activation_checkpointing.

    schedule: that of `rate` in words
    spacing: of the volumes, mm
    """
    model = Autoencoding(
        VQVAE(**arguments),
        spatial_dims=arguments["spatial_dims"],
        spectral_cost=settings.spectral_cost,
        adversarial_cost=settings.adversarial_cost,
    ).to(device)
    published, after_step = _published(model, settings.average_decay)

    def reconstruct(volumes: Tensor) -> Reconstructed:
        found = published(volumes)
        return Reconstructed(published.to_volumes(found.outputs), found.codes)

    return Contender(
        name=name,
        recipe=f"{_loss_and_data(settings)}, Muon {settings.learning_rate}, {schedule}, "
        f"trained in {_precision(device)}, {json.dumps(arguments['quantizer'])}",
        model=model,
        optimiser=Muon(model, settings.weight_decay),
        rate=rate,
        loss=lambda volumes: model(volumes)[0]["loss"],
        reconstruct=reconstruct,
        map_names=published.map_names,
        num_embeddings=published.num_embeddings,
        downsamplings=published.downsamplings,
        gradient_norm=MAX_GRADIENT_NORM,
        vary=variation(settings, spacing, device),
        after_step=after_step,
        published=published,
    )


def variation(settings: TrainVQVAE, spacing: Sequence[float], device: torch.device) -> Vary:
    """Augmentation and cutting to patches, each if it is asked for. spacing: mm."""
    augmentation = None
    if settings.augment is not None:
        options = augmentation_arguments(settings.augment, spacing=spacing)
        augmentation = Augmentation(device=device, labelled=False, **options)

    def vary(volumes: Tensor, seeds: Sequence[int]) -> Tensor:
        if augmentation is not None:
            volumes = augmentation(volumes, seeds)
        return volumes if settings.patch is None else cut(volumes, settings.patch, seeds)

    return vary


def _published(
    model: Autoencoding, average_decay: float | None
) -> tuple[VQVAE, Callable[[], None]]:
    """The VQ-VAE whose figures count, and what keeps it up to date after each step."""
    if average_decay is None:
        return model.vqvae, nothing
    average = averaged(model, average_decay)
    published = average.module.eval().vqvae
    assert isinstance(published, VQVAE)
    return published, lambda: average.update_parameters(model)


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


def _loss_and_data(settings: TrainVQVAE) -> str:
    """What is minimised and on what, in words."""
    costs = {"spectral": settings.spectral_cost, "adversarial": settings.adversarial_cost}
    words = "squared error + quantizer loss"
    words += "".join(f" + {cost} {name} loss" for name, cost in costs.items() if cost)
    if settings.augment is not None:
        words += f", volumes varied by {json.dumps(settings.augment.model_dump(mode='json'))}"
    if settings.patch is not None:
        words += f", in patches of {settings.patch}"
    if settings.average_decay is not None:
        words += f", weights averaged with decay {settings.average_decay}"
    return words


def _precision(device: torch.device) -> str:
    with mixed_precision(device):
        enabled = torch.is_autocast_enabled(device.type)
    return "bfloat16 autocast" if enabled else "float32"
