import pytest
import torch
from torch import Tensor, nn

from tests.vqvae.test_vqvae import model
from vqmri.training.autoencoding import Autoencoding


def built(**costs: float) -> Autoencoding:
    return Autoencoding(model(), spatial_dims=3, **costs)


def gradients(net: nn.Module) -> list[Tensor]:
    return [torch.zeros_like(p) if p.grad is None else p.grad for p in net.parameters()]


def volumes() -> Tensor:
    return torch.rand(2, 1, 16, 32, 16)


def test_without_costs_it_is_the_plain_objective() -> None:
    terms, codes = built()(volumes())
    assert set(terms) == {"loss", "mse", "quantizer"}
    torch.testing.assert_close(terms["loss"], terms["mse"] + terms["quantizer"])
    assert codes[0].shape == (2, 4, 8, 4)


def test_terms_add_up_with_their_weights() -> None:
    terms, _ = built(spectral_cost=0.5, adversarial_cost=0.25)(volumes())
    expected = terms["mse"] + terms["quantizer"] + 0.5 * terms["spectral"]
    expected = expected + 0.25 * terms["adversarial"] + terms["opponent"]
    torch.testing.assert_close(terms["loss"], expected)


def test_the_spectral_term_sees_texture_wherever_it_lies() -> None:
    spectral = built(spectral_cost=1.0).spectral
    assert spectral is not None
    wave = torch.sin(torch.arange(16) * torch.pi / 2).expand(1, 1, 16, 16, 16)
    shifted, flat = wave.roll(1, dims=-1), torch.zeros_like(wave) + wave.mean()
    assert float(spectral(shifted, wave)) < 1e-10 < float(spectral(flat, wave))


@pytest.mark.parametrize("term", ["adversarial", "opponent"])
def test_each_side_of_the_contest_has_its_own_gradient(term: str) -> None:
    net = built(adversarial_cost=1.0)
    net(volumes())  # the codebook's first batch
    net(volumes())[0][term].backward()
    own, other = (net.vqvae, net.opponent) if term == "adversarial" else (net.opponent, net.vqvae)
    assert own is not None
    assert other is not None
    assert any(g.abs().max() > 0 for g in gradients(own))
    assert all((g == 0).all() for g in gradients(other))


def test_the_opponent_learns_to_tell_them_apart() -> None:
    net = built(adversarial_cost=1.0)
    assert net.opponent is not None
    optimiser = torch.optim.Adam(net.opponent.parameters(), lr=1e-3)
    batch = volumes()
    losses = []
    for _ in range(12):
        loss = net(batch)[0]["opponent"]
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.8 * losses[0]


def test_recomputed_activations_give_the_same_gradients_from_less_memory() -> None:
    plain, lean = model(), model()
    plain(volumes())
    lean.load_state_dict(plain.state_dict())
    lean.recompute_activations()
    batch, kept = volumes(), []
    for net in (plain, lean):
        saved: dict[int, int] = {}

        def note(tensor: Tensor, saved: dict[int, int] = saved) -> Tensor:
            storage = tensor.untyped_storage()
            saved[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            outputs = net(batch).outputs
        outputs.square().mean().backward()
        kept.append(sum(saved.values()))
    for one, other in zip(gradients(plain), gradients(lean), strict=True):
        torch.testing.assert_close(one, other)
    assert kept[1] < 0.6 * kept[0]
