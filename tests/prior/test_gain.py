import numpy as np
import pytest
import torch
from scipy.stats import norm

from tests.prior.cases import prior, random_maps
from vqmri.prior import Prior, nats_per_code
from vqmri.prior.choice import Choice
from vqmri.prior.gain import MIN_STD, GaussianGain
from vqmri.prior.sampler import Drawing, draw

GRIDS, SIZES = [(4, 4, 2), (2, 2, 1), (2, 2, 1)], [6, 0, 4]


def test_moments_are_those_of_each_codes_own_gains() -> None:
    random = np.random.default_rng(0)
    codes = random.integers(5, size=(7, 3, 4))
    gains = (random.normal(size=codes.shape) * (codes + 1) + 10 * codes).astype(np.float32)
    model = GaussianGain(5)
    model.fit(torch.from_numpy(gains), torch.from_numpy(codes))
    for code in range(5):
        own = gains[codes == code].astype(np.float64)
        assert float(model.mean[code]) == pytest.approx(own.mean(), rel=1e-5)
        assert float(model.std[code]) == pytest.approx(own.std(), rel=1e-5)


def test_rare_codes_take_the_moments_of_all_and_no_deviation_is_zero() -> None:
    gains = torch.tensor([[1.0, 2.0, 4.0, 4.0, 8.0]])
    model = GaussianGain(4)
    model.fit(gains, torch.tensor([[0, 0, 1, 1, 2]]))  # 1 is constant, 2 single, 3 unused
    assert model.mean.tolist() == pytest.approx([1.5, 4.0, 3.8, 3.8])
    everything = float(gains.std(correction=0))
    assert model.std.tolist() == pytest.approx([0.5, MIN_STD, everything, everything])


def test_nats_are_those_of_scipy() -> None:
    model = GaussianGain(3).double()
    model.mean.copy_(torch.tensor([1.0, 0.5, 2.0]))
    model.std.copy_(torch.tensor([0.1, 1.0, 0.01]))
    codes = torch.randint(3, (4, 3, 5))
    gains = torch.randn(4, 3, 5, dtype=torch.float64)
    expected = -norm.logpdf(gains.numpy(), model.mean[codes].numpy(), model.std[codes].numpy())
    np.testing.assert_allclose(model.nats(gains, codes).numpy(), expected, rtol=1e-9)


def fitted() -> tuple[Prior, list[torch.Tensor]]:
    module = prior(GRIDS, SIZES)
    values = random_maps(module, 50)
    values[1] = values[1] + values[2]  # each code with a mean of its own
    module.fit_gains(values)
    return module, values


def test_a_prior_with_real_gains_returns_the_nats_of_their_density() -> None:
    module, values = fitted()
    found = module(values)
    assert [tuple(nats.shape) for nats in found] == [(50, *grid) for grid in GRIDS]
    gains, codes = values[1].numpy(), values[2].numpy()
    of_codes = [gains[codes == code] for code in range(4)]
    means, stds = (np.array([getattr(own, f)() for own in of_codes]) for f in ("mean", "std"))
    np.testing.assert_allclose(
        found[1].numpy(), -norm.logpdf(gains, means[codes], stds[codes]), rtol=1e-4, atol=1e-4
    )
    # the temperature of a likelihood is that of codes
    assert torch.equal(module(values, temperature=2.0)[1], found[1])
    assert not torch.equal(module(values, temperature=2.0)[2], found[2])


def test_the_gains_of_each_level_belong_to_its_own_codes() -> None:
    grid = (3, 4)
    module = prior([grid] * 4, [0, 3, 0, 3])
    lower, upper = torch.randint(3, (2, 20, *grid))
    gains = [5.0 * lower + torch.randn(20, *grid), -9.0 * upper + torch.randn(20, *grid)]
    module.fit_gains([gains[0], lower, gains[1], upper])
    for index, codes, slope in ((0, lower, 5.0), (2, upper, -9.0)):
        model = module.maps[index]
        assert isinstance(model, GaussianGain)
        own = gains[index // 2]
        expected = [float(own[codes == code].mean()) for code in range(3)]
        assert model.mean.tolist() == pytest.approx(expected, rel=1e-5)
        assert expected == pytest.approx([slope * code for code in range(3)], abs=1.0)


def test_real_gains_count_in_no_loss_of_codes() -> None:
    module, values = fitted()
    found = module(values)
    expected = (found[0].sum() + found[2].sum()) / (found[0].numel() + found[2].numel())
    torch.testing.assert_close(nats_per_code(found, SIZES), expected)


def test_the_lower_map_depends_on_the_gain_as_on_a_number() -> None:
    module, values = fitted()
    values[1].requires_grad_()
    lower, top = (module.logits(index, values, module.unknown(50)) for index in (0, 2))
    (slope,) = torch.autograd.grad(lower.square().sum(), values[1])
    assert (slope != 0).all()
    (slope,) = torch.autograd.grad(top.sum(), values[1], allow_unused=True)
    assert slope is None


@pytest.mark.parametrize("temperature", [1.0, 0.6, 0.0])
def test_gains_are_drawn_from_the_gaussian_of_their_code(temperature: float) -> None:
    module, _ = fitted()
    numbers = [4, 0, 9]
    drawn = draw(module, seed=5, numbers=numbers, choice=Choice(temperature))
    gain = module.maps[1]
    assert isinstance(gain, GaussianGain)
    noise = torch.from_numpy(Drawing(5, numbers, 1).normal(GRIDS[1]))
    expected = gain.mean[drawn[2]] + gain.std[drawn[2]] * temperature**0.5 * noise
    torch.testing.assert_close(drawn[1], expected, rtol=1e-6, atol=1e-6)


def test_what_was_fitted_is_kept_with_the_weights() -> None:
    module, values = fitted()
    other = prior(GRIDS, SIZES)
    assert not torch.equal(other(values)[1], module(values)[1])
    other.load_state_dict(module.state_dict())
    assert torch.equal(other(values)[1], module(values)[1])
