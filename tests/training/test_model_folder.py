import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.training.cases import (
    COVARIATES,
    PRIOR_ARGUMENTS,
    VQVAE_ARGUMENTS,
    publish,
    scattered_prior,
    seal,
    started_vqvae,
    volumes,
)
from vqmri.errors import InputError, IntegrityError
from vqmri.outputs import sha256_of
from vqmri.prior import Prior
from vqmri.prior.covariates import encode
from vqmri.training.model_folder import load_model
from vqmri.vqvae import VQVAE

COMMON: dict[str, Any] = {"commitment_cost": 0.25, "initialisation": "data"}
QUANTIZERS: list[dict[str, Any]] = [
    COMMON | {"kind": "codebook_loss"},
    COMMON | {"kind": "ema", "decay": 0.9},
    VQVAE_ARGUMENTS["quantizer"],
    VQVAE_ARGUMENTS["quantizer"] | {"num_gains": None},
]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return publish(tmp_path / "vqvae", started_vqvae(), VQVAE_ARGUMENTS, {"spacing": [1.0, 2.0]})


@pytest.mark.parametrize("quantizer", QUANTIZERS, ids=lambda q: f"{q['kind']}")
def test_a_vqvae_comes_back_with_its_codebooks_and_in_evaluation_mode(
    tmp_path: Path, quantizer: dict[str, Any]
) -> None:
    arguments = VQVAE_ARGUMENTS | {"quantizer": quantizer}
    model = started_vqvae(quantizer=quantizer)
    folder = publish(tmp_path / "vqvae", model, arguments, {"spacing": [1.0, 2.0]})
    loaded, about = load_model(folder, VQVAE)
    assert not loaded.training
    assert about == {
        "spacing": [1.0, 2.0],
        "weights": sha256_of(folder / "weights.safetensors"),
    }
    for name in ("map_names", "downsamplings", "num_embeddings", "in_channels", "num_classes"):
        assert getattr(loaded, name) == getattr(model, name)
    model.eval()
    batch = volumes(2)
    for one, other in zip(model.encode(batch), loaded.encode(batch), strict=True):
        assert torch.equal(one, other)
    assert torch.equal(model(batch).outputs, loaded(batch).outputs)


@pytest.mark.parametrize("num_embeddings", [[3, 8, 3, 6], [0, 8, 0, 6]], ids=str)
def test_a_prior_comes_back_with_its_covariates_and_gaussians(
    tmp_path: Path, num_embeddings: list[int]
) -> None:
    model = scattered_prior(num_embeddings=num_embeddings)
    values = [
        torch.randint(number, (4, *grid)) if number else torch.randn(4, *grid)
        for grid, number in zip(model.grids, num_embeddings, strict=True)
    ]
    model.fit_gains(values)
    arguments = PRIOR_ARGUMENTS | {"num_embeddings": num_embeddings}
    loaded, _ = load_model(publish(tmp_path / "prior", model, arguments, {}), Prior)
    assert loaded.covariates == COVARIATES
    assert loaded.grids == model.grids
    rows = encode(loaded.covariates, [{"age": 30}, {"site": "c"}, {}, {"age": 40, "site": "a"}])
    for one, other in zip(model.eval()(values, rows), loaded(values, rows), strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("name", ["weights.safetensors", "model.json"])
def test_one_flipped_bit_is_found(folder: Path, name: str) -> None:
    path = folder / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(IntegrityError, match=name):
        load_model(folder, VQVAE)


def test_another_kind_or_no_model_is_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match=r"VQVAE.*expected.*Prior"):
        load_model(folder, Prior)
    with pytest.raises(InputError):
        load_model(tmp_path, VQVAE)


def test_another_format_version_is_refused(folder: Path) -> None:
    description = json.loads((folder / "model.json").read_text())
    description["format_version"] += 1
    (folder / "model.json").write_text(json.dumps(description))
    seal(folder)
    with pytest.raises(IntegrityError, match="expected"):
        load_model(folder, VQVAE)


@pytest.mark.parametrize("changes", [{"unheard_of": 1}, {"num_res_blocks": [5, 5]}])
def test_a_model_of_another_version_is_refused(folder: Path, changes: dict[str, Any]) -> None:
    description = json.loads((folder / "model.json").read_text())
    description["arguments"] |= changes
    (folder / "model.json").write_text(json.dumps(description))
    seal(folder)
    with pytest.raises(IntegrityError, match="another version of vqmri"):
        load_model(folder, VQVAE)
