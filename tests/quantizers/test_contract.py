"""What holds for every quantizer."""

import inspect
from typing import Any

import numpy as np
import pytest
import torch

from tests.quantizers.cases import (
    COMMITMENT_COST,
    INITIALISATIONS,
    NAMES,
    build,
    started,
    train,
)
from vqmri.quantizers import Initialisation, build_quantizer
from vqmri.quantizers.clusters import starting_rule

every_quantizer = pytest.mark.parametrize("name", NAMES)
every_initialisation = pytest.mark.parametrize("initialisation", INITIALISATIONS)
every_grid = pytest.mark.parametrize("grid", [(5, 3), (4, 3, 2)])


def numpy_distances(latents: torch.Tensor, codebook: torch.Tensor) -> np.ndarray:
    """(batch, num_embeddings, *grid) in float64, by a sum over the channel axis."""
    values = latents.detach().double().numpy()
    vectors = codebook.detach().double().numpy()
    each = [
        ((values - vector.reshape(1, -1, *[1] * (values.ndim - 2))) ** 2).sum(axis=1)
        for vector in vectors
    ]
    return np.stack(each, axis=1)


@every_quantizer
@every_grid
def test_maps_are_what_is_announced(name: str, grid: tuple[int, ...]) -> None:
    module = started(name)
    out = module(torch.randn(2, 4, *grid))
    assert out.latents.shape == (2, 4, *grid)
    assert len(out.codes) == len(module.map_sizes) == len(module.map_names)
    for codes, size in zip(out.codes, module.map_sizes, strict=True):
        assert codes.shape == (2, *grid)
        assert codes.dtype == (torch.int64 if size else torch.float32)
        if size:
            assert 0 <= int(codes.min()) <= int(codes.max()) < size
    assert module.codebook.shape == (module.num_embeddings, module.embedding_dim) == (8, 4)
    assert module.map_sizes[-1] == 8


def test_names_and_sizes_of_maps() -> None:
    found = {name: (build(name).map_sizes, build(name).map_names) for name in NAMES}
    assert found == {
        "codebook_loss": ((8,), ("",)),
        "ema": ((8,), ("",)),
        "projected": ((4, 8), ("_gain", "")),
        "projected_real": ((0, 8), ("_gain", "")),
    }


@every_quantizer
@every_grid
def test_codes_and_distances_are_numpys(name: str, grid: tuple[int, ...]) -> None:
    module = started(name, number=32)
    latents = torch.randn(20, 4, *grid)
    expected = numpy_distances(latents, module.codebook)
    best, second = np.sort(expected, axis=1)[:, :2].swapaxes(0, 1)
    clear = second - best > 1e-4
    assert clear.mean() > 0.99
    codes = module(latents).codes[-1].numpy()
    assert (codes == expected.argmin(axis=1))[clear].all()
    np.testing.assert_allclose(module.distances(latents).numpy(), expected, rtol=1e-4, atol=1e-6)


@every_quantizer
def test_autocast_changes_nothing(name: str) -> None:
    module = started(name, number=32)
    latents = 1000 + torch.randn(2, 4, 8, 8)  # bfloat16 cannot tell these apart
    with torch.no_grad():
        module.codebook.add_(1000)
    expected, distances = module(latents), module.distances(latents)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, again = module(latents), module.distances(latents)
    assert torch.equal(found.codes[-1], expected.codes[-1])
    assert torch.equal(found.latents, expected.latents)
    assert torch.equal(again, distances)


@every_quantizer
def test_gradient_goes_straight_through(name: str) -> None:
    latents = torch.randn(1, 4, 2, 3, 2, requires_grad=True)
    weights = torch.randn_like(latents)
    (started(name)(latents).latents * weights).sum().backward()
    assert latents.grad is not None
    torch.testing.assert_close(latents.grad, weights)


@every_quantizer
def test_beta_is_on_the_encoder(name: str) -> None:
    latents = torch.randn(1, 4, 2, 3, requires_grad=True)
    out = started(name)(latents)
    out.loss.backward()
    # d/dz of β·mean((z − q)²) is 2β(z − q)/n
    expected = 2 * COMMITMENT_COST * (latents - out.latents).detach() / latents.numel()
    assert latents.grad is not None
    torch.testing.assert_close(latents.grad, expected)


@every_quantizer
@every_grid
def test_decode_gives_the_quantized_latents(name: str, grid: tuple[int, ...]) -> None:
    module = started(name)
    out = module(torch.randn(2, 4, *grid))
    torch.testing.assert_close(module.decode(out.codes), out.latents)


@every_quantizer
def test_evaluation_changes_nothing(name: str) -> None:
    module = started(name)
    before = {key: value.clone() for key, value in module.state_dict().items()}
    module(torch.randn(1, 4, 6, 6) * 5)
    for key, value in module.state_dict().items():
        assert torch.equal(value, before[key]), key
    module.train()(torch.randn(1, 4, 6, 6) * 5)
    assert any(not torch.equal(v, before[k]) for k, v in module.state_dict().items())


@every_quantizer
def test_resume_does_not_initialise_again(name: str) -> None:
    module = started(name).train()
    resumed = build(name).train()
    resumed.load_state_dict(module.state_dict())
    far = torch.full((1, 4, 6, 6), 100.0)
    for each in (module, resumed):
        torch.manual_seed(1)
        each(far)
    assert module.codebook.norm(dim=1).min() < 50
    for key, value in module.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[key]), key


@every_quantizer
@every_initialisation
def test_the_first_batch_makes_the_codebook(name: str, initialisation: Initialisation) -> None:
    module = build(name, number=64, initialisation=initialisation).train()
    out = module(torch.randn(1, 4, 3, 3))  # fewer tokens than codes
    assert torch.isfinite(module.codebook).all()
    assert out.codes[-1].max() < 64
    # there are as many vectors as tokens, so they are the tokens
    torch.testing.assert_close(out.loss, torch.zeros(()), atol=1e-6, rtol=0)


@every_quantizer
@every_initialisation
@pytest.mark.parametrize("number", [64, 512])
def test_no_collapse_on_clustered_data(
    name: str, initialisation: Initialisation, number: int
) -> None:
    clusters = torch.randn(256, 8) * 3
    tokens = clusters[torch.randint(256, (200, 1024))]
    tokens = tokens + 0.02 * torch.randn_like(tokens)
    batches = list(tokens.transpose(1, 2).reshape(200, 1, 8, 32, 32))
    module = build(name, number, 8, decay=0.99, initialisation=initialisation)
    train(module, batches)
    codes = module.eval()(clusters.T.reshape(1, 8, 16, 16)).codes
    assert len(codes[-1].unique()) >= 0.9 * min(number, 256)
    assert module.codebook.norm(dim=1).max() <= 2 * tokens.norm(dim=2).max()


def unchecked(function: Any) -> Any:
    """Without the tests' own check of arguments, which a user does not have."""
    return inspect.unwrap(function)


def test_unknown_choices_are_refused_with_what_is_allowed() -> None:
    with pytest.raises(ValueError, match="'vq'; allowed: codebook_loss, ema, projected"):
        unchecked(build_quantizer)("vq", num_embeddings=8, embedding_dim=4)
    with pytest.raises(ValueError, match="'zeros'; allowed: data, kmeans"):
        unchecked(starting_rule)("zeros")
