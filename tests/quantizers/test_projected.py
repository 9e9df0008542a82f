import numpy as np
import pytest
import torch

from tests.quantizers.cases import build, started, train
from vqmri.errors import InputError
from vqmri.quantizers import ProjectedQuantizer, Quantizer

both_kinds = pytest.mark.parametrize("name", ["projected", "projected_real"])


def numpy_projection(
    latents: torch.Tensor, codebook: torch.Tensor, levels: np.ndarray | None
) -> np.ndarray:
    """z̄ position by position, in float64."""
    values, vectors = latents.double().numpy(), codebook.double().numpy()
    result = np.empty_like(values)
    for batch in range(values.shape[0]):
        for position in np.ndindex(*values.shape[2:]):
            z = values[(batch, slice(None), *position)]
            e = vectors[((z - vectors) ** 2).sum(axis=1).argmin()]
            gain = z @ e / (e @ e)
            if levels is not None:
                gain = levels[np.abs(levels - gain).argmin()]
            result[(batch, slice(None), *position)] = gain * e
    return result


@both_kinds
@pytest.mark.parametrize("grid", [(4, 4), (4, 4, 4), (3, 5, 2)])
def test_projection_by_hand_over_the_channel_axis(name: str, grid: tuple[int, ...]) -> None:
    # a grid as long as the channel axis, so that a projection along another axis would run too
    module = started(name)
    assert isinstance(module, ProjectedQuantizer)
    ema = module.gain_ema
    levels = None if ema is None else ema.vectors.double().numpy().flatten()
    latents = torch.randn(2, 4, *grid)
    expected = numpy_projection(latents, module.codebook, levels)
    np.testing.assert_allclose(module(latents).latents.numpy(), expected, rtol=1e-4, atol=1e-5)


@both_kinds
def test_gradient_of_the_projection_term_by_hand(name: str) -> None:
    module = started(name, projection_cost=0.7)
    assert isinstance(module, ProjectedQuantizer)
    module.commitment_cost = 0.0
    latents = torch.randn(2, 4, 3, 3, requires_grad=True)
    out = module(latents)
    out.loss.backward()
    vectors = module.codebook[out.codes[-1]].movedim(-1, 1)
    products = (latents * vectors).sum(dim=1, keepdim=True)
    gains = (products / vectors.square().sum(dim=1, keepdim=True)).detach()
    torch.testing.assert_close(out.loss, 0.7 * ((gains - 1) * vectors).square().mean())
    # d/dz of c·mean((g e − e)²), with ∂g/∂z = e/‖e‖², is 2c(g − 1)e/n
    assert latents.grad is not None
    expected = 2 * 0.7 * (gains - 1) * vectors / latents.numel()
    torch.testing.assert_close(latents.grad, expected)


@both_kinds
def test_zero_vectors_are_refused_before_training(name: str) -> None:
    module = build(name, number=8).train()
    latents = torch.randn(1, 4, 2, 4)
    latents[..., 0] = 0
    with pytest.raises(InputError, match=r"2 of 8 codebook vectors.*length 0.*take the quantizer"):
        module(latents)
    module(torch.randn(1, 4, 6, 6))  # nothing was learned from the refused batch
    assert (module.codebook.norm(dim=1) > 0).all()


@both_kinds
def test_a_vector_that_becomes_zero_later_does_no_harm(name: str) -> None:
    module = started(name)
    module.codebook[3] = 0
    latents = (0.01 * torch.randn(1, 4, 3, 3)).requires_grad_()
    out = module(latents)
    assert (out.codes[-1] == 3).any()
    (out.loss + out.latents.sum()).backward()
    assert latents.grad is not None
    assert torch.isfinite(out.latents).all()
    assert torch.isfinite(latents.grad).all()


def scaled_clusters() -> list[torch.Tensor]:
    """Batches of 4 directions at lengths of 5 to 15: a gain says what is left."""
    directions = torch.nn.functional.normalize(torch.randn(4, 16), dim=1)
    lengths = 10 * (0.5 + torch.rand(200, 512, 1))
    tokens = lengths * directions[torch.randint(4, (200, 512))]
    return list(tokens.transpose(1, 2).reshape(200, 1, 16, 16, 32))


def error(module: Quantizer, batch: torch.Tensor) -> float:
    return float((module.eval()(batch).latents - batch).square().mean())


def test_gains_stay_usable_and_lower_the_error() -> None:
    batches = scaled_clusters()
    errors = {}
    for name in ("ema", "projected", "projected_real"):
        torch.manual_seed(1)
        module = build(name, number=12, dim=16, initialisation="kmeans")
        train(module, batches[:-1])
        errors[name] = error(module, batches[-1])
        if name == "projected":
            assert len(module(batches[-1]).codes[0].unique()) == 4
    assert errors["projected"] < 0.25 * errors["ema"]
    assert errors["projected_real"] < 0.01 * errors["projected"]


def test_gains_start_at_quantiles() -> None:
    module = build("projected", decay=1.0).train()  # nothing moves after the start
    assert isinstance(module, ProjectedQuantizer)
    assert module.gain_ema is not None
    latents = torch.randn(1, 4, 10, 10)
    codes = module(latents).codes[1]
    vectors = module.codebook[codes].movedim(-1, 1).double().numpy()
    products = (latents.double().numpy() * vectors).sum(axis=1)
    gains = np.sort((products / (vectors**2).sum(axis=1)).flatten())
    found = module.gain_ema.vectors.flatten().numpy()
    np.testing.assert_allclose(found, gains[[12, 37, 62, 87]], rtol=1e-5)


@both_kinds
def test_gains_of_the_wrong_kind_are_refused(name: str) -> None:
    module = started(name)
    gains, codes = module(torch.randn(1, 4, 3, 3)).codes
    wrong = gains.long() if gains.is_floating_point() else gains.float()
    with pytest.raises(ValueError, match="the gains of this quantizer are"):
        module.decode([wrong, codes])


def test_no_gains_at_all_is_refused() -> None:
    options = {"decay": 0.9, "commitment_cost": 1.0, "projection_cost": 1.0}
    with pytest.raises(ValueError, match="num_gains is 0"):
        ProjectedQuantizer(8, 4, **options, num_gains=0, initialisation="data")
