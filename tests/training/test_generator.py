import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.training.cases import (
    COVARIATES,
    GRIDS,
    SIZES,
    SPACE,
    publish,
    publish_both,
    scattered_prior,
    seal,
)
from vqmri.errors import IntegrityError, ParamsError
from vqmri.prior.choice import Choice
from vqmri.prior.covariates import encode
from vqmri.training import generator as module
from vqmri.training.generator import Generator, micro_batch


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    return publish_both(tmp_path)


@pytest.fixture
def generator(folders: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch) -> Generator:
    """One of eight slots, so that a few samples are of several micro-batches."""
    monkeypatch.setattr(module, "_POSITIONS_PER_BATCH", 8)
    return Generator(*folders)


@pytest.mark.parametrize(
    ("grids", "expected"),
    [([(7, 7)], 83), ([(10, 14, 10)], 8), ([(32, 16), (8, 4)], 8), ([(4, 8), (4, 8)], 64)],
)
def test_small_grids_are_drawn_many_at_once(grids: list[tuple[int, ...]], expected: int) -> None:
    assert micro_batch(scattered_prior(grids=grids, num_embeddings=[4] * len(grids))) == expected


def test_a_prior_of_another_vqvae_is_refused(folders: tuple[Path, Path]) -> None:
    vqvae, prior = folders
    description = json.loads((prior / "model.json").read_text())
    description["about"]["vqvae_weights"] = "0" * 64
    (prior / "model.json").write_text(json.dumps(description))
    seal(prior)
    with pytest.raises(IntegrityError, match="trained on codes of the VQ-VAE 0000"):
        Generator(vqvae, prior)


def test_a_draw_has_a_map_for_each_of_the_models(generator: Generator) -> None:
    assert generator.micro_batch == 8
    drawn = generator.draw(0, 1, Choice())
    assert [tuple(values.shape) for values in drawn] == [(8, *grid) for grid in GRIDS]
    assert generator.vqvae.num_embeddings == tuple(SIZES)
    for values, size in zip(drawn, SIZES, strict=True):
        assert int(values.max()) < size


def test_decoded_are_intensities_and_labels(generator: Generator) -> None:
    drawn = generator.draw(0, 0, Choice())
    with torch.no_grad():
        outputs = generator.vqvae.decode(drawn)
    found = generator.decode(drawn)
    assert found.shape == (8, 2, *SPACE)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found[:, :1], outputs[:, :1].clamp(0, 1).numpy(), atol=1e-5)
    assert (found[:, 1] == outputs[:, 1:].argmax(dim=1).numpy()).mean() > 0.99  # rounding
    assert len(np.unique(found[:, 1])) > 1


def test_a_sample_is_the_same_whichever_others_are_asked_for(generator: Generator) -> None:
    some = generator.sample(0, [17, 2, 3], Choice())
    assert some.shape == (3, 2, *SPACE)
    assert (generator.sample(0, [2], Choice())[0] == some[1]).all()
    assert (generator.sample(0, [17], Choice())[0] == some[0]).all()
    assert not (some[0] == some[1]).all()
    assert not (some[1] == some[2]).all()
    assert not (generator.sample(1, [2], Choice())[0] == some[1]).all()


def test_a_sample_is_the_decoded_draw_of_its_number(generator: Generator) -> None:
    rows = encode(COVARIATES, [{"age": 70, "site": "b"}] * 8)
    expected = generator.decode(generator.draw(4, 1, Choice(0.8), rows=rows))[3]
    found = generator.sample(4, [11], Choice(0.8), {"age": 70, "site": "b"})
    assert np.array_equal(found[0], expected)


def test_covariates_change_the_samples(generator: Generator) -> None:
    of_nobody = generator.sample(0, [2, 5], Choice())
    assert np.array_equal(generator.sample(0, [2, 5], Choice(), {}), of_nobody)
    old, young = (generator.sample(0, [2, 5], Choice(), {"age": age}) for age in (75, 25))
    for one, other in ((old, young), (old, of_nobody), (young, of_nobody)):
        assert not np.array_equal(one, other)


@pytest.mark.parametrize(
    ("covariates", "fault"),
    [({"sex": "F"}, "no such covariate"), ({"site": "d"}, "a, b, c"), ({"age": 90}, "20 to 80")],
)
def test_unknown_covariates_are_refused(
    generator: Generator, covariates: dict[str, object], fault: str
) -> None:
    with pytest.raises(ParamsError, match=fault):
        generator.sample(0, [0], Choice(), covariates)


def test_guidance_and_temperature_reach_the_draw(generator: Generator) -> None:
    rows = encode(COVARIATES, [{"age": 70, "site": "b"}] * 8)
    plain = generator.draw(0, 0, Choice(), rows=rows)
    guided = generator.draw(0, 0, Choice(1.0, guidance=4.0), rows=rows)
    cold = generator.draw(0, 0, Choice(0.1), rows=rows)
    for other in (guided, cold):
        assert any(not torch.equal(a, b) for a, b in zip(plain, other, strict=True))
    counted: list[int] = []
    generator.draw(0, 0, Choice(), progress=counted.append)
    assert sum(counted) == 24 + 24 + 6 + 6


def test_a_prior_without_covariates_takes_none(
    folders: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_POSITIONS_PER_BATCH", 8)
    vqvae, prior = folders
    about = json.loads((prior / "model.json").read_text())
    plain = publish(
        tmp_path / "plain",
        scattered_prior(covariates=[]),
        about["arguments"] | {"covariates": []},
        about["about"],
    )
    found = Generator(vqvae, plain)
    assert found.sample(0, [1], Choice()).shape == (1, 2, *SPACE)
    with pytest.raises(ParamsError, match="trained without conditions"):
        found.sample(0, [1], Choice(), {"age": 30})


def test_large_volumes_are_decoded_few_at_a_time_and_only_those_wanted(
    generator: Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = generator.draw(0, 0, Choice())
    together = generator.decode(drawn)
    decode, passed = generator.vqvae.decode, []

    def spied(codes: list[torch.Tensor]) -> torch.Tensor:
        passed.append(len(codes[0]))
        return decode(codes)

    monkeypatch.setattr(generator.vqvae, "decode", spied)
    monkeypatch.setattr(module, "_VOXELS_AT_A_TIME", 3 * int(np.prod(SPACE)))
    in_parts = generator.decode(drawn)
    assert passed == [3, 3, 2]
    np.testing.assert_allclose(in_parts[:, 0], together[:, 0], atol=1e-5)
    passed.clear()
    assert (generator.decode(drawn, number=4) == in_parts[:4]).all()
    assert passed == [3, 3]
    passed.clear()
    monkeypatch.setattr(module, "_VOXELS_AT_A_TIME", 1)
    assert len(generator.decode(drawn, number=2)) == 2
    assert passed == [1, 1]
