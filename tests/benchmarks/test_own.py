"""Ours is trained here as the stage trains it."""

from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.by_time import PRESET
from benchmarks.contender import Batches, reconstruct_side, train
from benchmarks.own import own_contender
from benchmarks.volumes import read_split
from tests.conftest import tiny_values
from vqmri.build.train_vqvae import vqvae_arguments
from vqmri.cli import PRESETS
from vqmri.layout import Layout
from vqmri.params import Params
from vqmri.stages.ingest import ingest
from vqmri.stages.train_vqvae import train_vqvae
from vqmri.training.device import choose_device
from vqmri.training.model_folder import load_model
from vqmri.training.optim import warmup_cosine
from vqmri.vqvae import VQVAE

STEPS = 6
AUGMENT = {"flips": [0], "rotation": 5.0, "scaling": 0.1, "translation": 8.0, "contrast": 0.2}
EVERYTHING: dict[str, Any] = {
    "augment": AUGMENT, "average_decay": 0.9, "spectral_cost": 0.1, "adversarial_cost": 0.1,
}  # fmt: skip
TWO_LEVELS: dict[str, Any] = {
    "channels": [8, 8, 16],
    "num_res_blocks": [0, 1, 1],
    "levels": [
        {"downsampling": 4, "num_embeddings": 16},
        {"downsampling": 8, "num_embeddings": 8},
    ],
}


@pytest.mark.parametrize(
    "changes", [{}, EVERYTHING, TWO_LEVELS | EVERYTHING, {"patch": [16, 16, 16]}]
)
def test_its_weights_are_those_that_the_stage_publishes(
    changes: dict[str, Any], tmp_path: Path
) -> None:
    """To the last bit on the CPU: the same loss, items, variation, optimiser and average."""
    values = tiny_values()
    values["seed"] = 3
    values["train_vqvae"] |= {"steps": STEPS, **changes}
    params, data = Params.model_validate(values), Layout(tmp_path)
    ingest(params, data)
    train_vqvae(params, data)
    published, _ = load_model(data.output("vqvae"), VQVAE)

    settings, device = params.train_vqvae, choose_device()
    split = read_split(data.output("volumes"))
    torch.manual_seed(params.seed)
    contender = own_contender(
        "ours",
        vqvae_arguments(settings, spatial_dims=3, in_channels=1, num_classes=0),
        settings,
        rate=warmup_cosine(settings.learning_rate, settings.warmup, settings.steps),
        schedule="as the stage",
        spacing=split.spacing,
        device=device,
    )
    batches = Batches(split.train, settings.batch_size, params.seed, device)
    train(contender, batches, STEPS)
    found = contender.network.state_dict()
    assert found.keys() == published.state_dict().keys()
    for key, value in published.state_dict().items():
        assert torch.equal(found[key].cpu(), value), key
    shown, _ = reconstruct_side(contender, split.held_out, batches)
    assert shown.shape == split.held_out.volumes.shape


def test_the_recipe_says_what_is_asked_for() -> None:
    preset = Params.load(PRESETS / f"{PRESET}.yaml").train_vqvae.model_dump(mode="json")

    def recipe(changes: dict[str, Any]) -> str:
        settings = Params.model_validate(
            tiny_values() | {"train_vqvae": preset | {"augment": None, **changes}}
        ).train_vqvae
        return own_contender(
            "ours",
            vqvae_arguments(settings, spatial_dims=3, in_channels=1, num_classes=0),
            settings,
            rate=lambda step: 0.0,
            schedule="no steps",
            spacing=(1.0, 1.0, 1.0),
            device=torch.device("cpu"),
        ).recipe

    said = recipe(EVERYTHING)
    for words in ("0.1 spectral loss", "0.1 adversarial loss", '"rotation": 5.0', "decay 0.9,"):
        assert words in said
        assert words not in recipe({"average_decay": None})
