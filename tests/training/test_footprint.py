import json
import os
import subprocess
import sys
from typing import Any

import pytest
import torch
from torch import nn

from tests.conftest import REPO
from vqmri.training.footprint import (
    Footprint,
    footprint,
    multiply_adds_per_second,
    prior_footprint,
    vqvae_footprint,
)

CPU = torch.device("cpu")
ARGUMENTS: dict[str, Any] = {
    "spatial_dims": 3,
    "in_channels": 1,
    "num_classes": 0,
    "channels": [16, 32],
    "num_res_blocks": [2, 2],
    "downsamplings": [4],
    "num_embeddings": [64],
    "embedding_dim": 8,
    "quantizer": {
        "kind": "ema", "decay": 0.99, "commitment_cost": 0.25, "initialisation": "data",
    },
}  # fmt: skip


def of(batch_size: int = 4, **changes: Any) -> Footprint:
    asked: dict[str, Any] = {"space": (24, 24, 24), "device": CPU} | changes
    return vqvae_footprint(ARGUMENTS, batch_size=batch_size, **asked)


def test_a_linear_layer_is_as_counted_by_hand() -> None:
    found = footprint(
        lambda: nn.Linear(4, 8, bias=False),
        lambda model: model(torch.zeros(2, 4)).sum(),
        device=CPU,
    )
    assert found.parameters == 32
    assert found.held == 3 * 128  # the weight and two moments
    assert found.peak == 3 * 128 + 32 + 4 + 4 + 128  # input, loss, its gradient, the weight's
    assert found.multiply_adds == 2 * 2 * 4 * 8  # forward, and the weight's gradient


def test_a_convolution_lays_its_operands_out_once_more() -> None:
    found = footprint(
        lambda: nn.Conv3d(1, 2, 1, bias=False),
        lambda model: model(torch.zeros(1, 1, 2, 2, 2)).sum(),
        device=CPU,
    )
    weight, image, output = 8, 32, 64
    assert found.peak == 3 * weight + image + output + (weight + image + output)


def test_an_average_is_one_more_copy_of_the_weights() -> None:
    plain, averaged = of(), of(averaged=True)
    assert averaged.held - plain.held == 4 * plain.parameters
    assert averaged.peak - plain.peak == 4 * plain.parameters


def test_checkpointing_takes_less_memory_and_more_arithmetic() -> None:
    plain, checkpointed = of(), of(checkpointing=True)
    assert checkpointed.peak < 0.85 * plain.peak
    assert 1.05 < checkpointed.multiply_adds / plain.multiply_adds < 1.4


def test_activations_scale_with_what_passes_at_a_time_and_arithmetic_with_the_batch() -> None:
    one, two, four, in_parts = of(1), of(2), of(4), of(4, micro_batch=1)
    assert four.peak - two.peak == pytest.approx(2 * (two.peak - one.peak), rel=0.1)
    gradient = 4 * one.parameters
    assert in_parts.peak == pytest.approx(one.peak + gradient, rel=0.1)
    assert four.multiply_adds == in_parts.multiply_adds == 4 * one.multiply_adds


def test_other_costs_and_quantizers_are_followed_too() -> None:
    opposed = of(adversarial_cost=0.1, spectral_cost=0.1)
    assert opposed.parameters > of().parameters
    for num_gains in (8, None):
        quantizer = {
            "kind": "projected", "decay": 0.99, "commitment_cost": 0.25, "projection_cost": 0.25,
            "num_gains": num_gains, "initialisation": "data",
        }  # fmt: skip
        arguments = ARGUMENTS | {"quantizer": quantizer}
        assert vqvae_footprint(arguments, space=(16, 16, 16), batch_size=1, device=CPU).peak > 0


@pytest.mark.parametrize("sizes", [[16], [0, 16]])
def test_the_prior_of_codes_and_of_real_gains(sizes: list[int]) -> None:
    arguments = {
        "grids": [[4, 6, 4]] * len(sizes), "num_embeddings": sizes, "channels": 8, "num_layers": 2,
        "kernel": 3, "radius": 2, "dropout": 0.1, "num_attention": 0, "heads": 1, "covariates": [],
        "condition_dropout": 0.1,
    }  # fmt: skip
    few, more, many = (prior_footprint(arguments, batch_size=n, device=CPU) for n in (4, 8, 16))
    assert many.peak - more.peak == pytest.approx(2 * (more.peak - few.peak), rel=0.15)
    assert many.multiply_adds == 4 * few.multiply_adds


def test_a_rate_is_measured() -> None:
    assert multiply_adds_per_second(CPU) > 1e8


_MEASURE = """
import json, sys, torch
from pathlib import Path
from vqmri.training.autoencoding import Autoencoding
from vqmri.training.memory import return_large_blocks
from vqmri.training.optim import Muon
from vqmri.vqvae import VQVAE

return_large_blocks()  # as every stage does

def trained(arguments, batch, space):
    model = Autoencoding(VQVAE(**arguments), spatial_dims=3).train()
    optimiser = Muon(model, 0.01)
    volumes = torch.rand(batch, 1, *space)
    for _ in range(3):
        optimiser.zero_grad(set_to_none=True)
        model(volumes)[0]["loss"].backward()
        optimiser.step()

def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmHWM"))

torch.set_num_threads(1)
arguments, batch, space = json.loads(sys.argv[1])
trained(arguments, 1, (8, 8, 8))  # so that every library is there
before = peak()
trained(arguments, batch, space)
print(peak() - before)
"""


@pytest.mark.parametrize(
    ("batch", "space", "within"),
    [
        (4, (40, 56, 40), 0.25),  # the allocator's share differs by a tenth from run to run
        pytest.param(2, (80, 112, 80), 0.2, marks=pytest.mark.long),
        pytest.param(1, (160, 224, 160), 0.2, marks=pytest.mark.long),
    ],
)
def test_memory_is_near_what_training_takes(
    batch: int, space: tuple[int, ...], within: float
) -> None:
    arguments = ARGUMENTS | {"channels": [32, 64], "embedding_dim": 32, "num_embeddings": [256]}
    forecast = vqvae_footprint(arguments, space=space, batch_size=batch, device=CPU)
    asked = json.dumps([arguments, batch, space])
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", _MEASURE, asked],
        cwd=REPO, capture_output=True, text=True, check=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert forecast.memory == pytest.approx(int(done.stdout), rel=within)
