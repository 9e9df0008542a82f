import json
from pathlib import Path

import pytest
import torch

from vqmri.errors import InputError, IntegrityError
from vqmri.layout import Layout
from vqmri.outputs import Identity, Manifest
from vqmri.prior import Prior
from vqmri.training.generator import MICRO_BATCH, Generator
from vqmri.training.model_folder import load_model
from vqmri.vqvae import VQVAE


def test_loads_in_evaluation_mode_with_what_it_is_about(finished: Layout) -> None:
    model, about = load_model(finished.output("vqvae"), VQVAE)
    assert not model.training
    assert about["shape"] == [1, 16, 24, 16]
    assert about["spacing"] == [10.0, 10.0, 10.0]
    prior, about = load_model(finished.output("prior"), Prior)
    assert prior.grids == ((4, 6, 4),)


@pytest.mark.parametrize("name", ["weights.safetensors", "model.json"])
def test_one_flipped_bit_is_found(copy_of_finished: Layout, name: str) -> None:
    path = copy_of_finished.output("vqvae") / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(IntegrityError, match=name):
        load_model(copy_of_finished.output("vqvae"), VQVAE)


def test_another_kind_or_no_model_is_refused(finished: Layout, tmp_path: Path) -> None:
    with pytest.raises(IntegrityError, match="Prior"):
        load_model(finished.output("prior"), VQVAE)
    with pytest.raises(InputError):
        load_model(tmp_path, VQVAE)


def test_generator_refuses_a_prior_of_another_vqvae(copy_of_finished: Layout) -> None:
    folder = copy_of_finished.output("prior")
    description = json.loads((folder / "model.json").read_text())
    description["about"]["vqvae_weights"] = "0" * 64
    (folder / "model.json").write_text(json.dumps(description))
    Manifest.of(folder, Identity("train_prior", 1, {}, {})).write(folder)
    with pytest.raises(IntegrityError, match="trained on codes"):
        Generator(copy_of_finished.output("vqvae"), folder)


def test_a_sample_is_the_same_whichever_others_are_asked_for(finished: Layout) -> None:
    generator = Generator(finished.output("vqvae"), finished.output("prior"))
    some = generator.sample(0, [MICRO_BATCH + 1, 2], 1.0)
    alone = generator.sample(0, [2], 1.0)
    assert some.shape == (2, 1, 16, 24, 16)
    assert (some[1] == alone[0]).all()
    assert some.min() >= 0
    assert some.max() <= 1
    assert torch.from_numpy(some[0] - some[1]).abs().max() > 0
