import pytest
import torch

from vqmri.quantizers import EMAQuantizer


def quantizer(number: int = 8, dim: int = 4, decay: float = 0.9) -> EMAQuantizer:
    return EMAQuantizer(number, dim, decay=decay, commitment_cost=0.25)


def trained(steps: int, number: int, clusters: torch.Tensor) -> tuple[EMAQuantizer, torch.Tensor]:
    """A quantizer after some steps on noisy clusters, and the last batch's tokens."""
    module = quantizer(number, clusters.shape[1], decay=0.99).train()
    for _ in range(steps):
        chosen = clusters[torch.randint(len(clusters), (1024,))]
        tokens = chosen + 0.02 * torch.randn_like(chosen)
        module(tokens.T.reshape(1, clusters.shape[1], 32, 32))
    return module, tokens


def test_decode_of_codes_is_the_quantized_value() -> None:
    module = quantizer().train()
    out = module(torch.randn(2, 4, 3, 5, 2))
    module.eval()
    again = module(torch.randn(2, 4, 3, 5, 2))
    assert out.latents.shape == (2, 4, 3, 5, 2)
    assert out.codes.shape == (2, 3, 5, 2)
    torch.testing.assert_close(module.decode(again.codes), again.latents)


def test_gradient_goes_straight_through_and_beta_is_on_the_encoder() -> None:
    module = quantizer()
    module(torch.randn(1, 4, 6, 6))
    module.eval()
    latents = torch.randn(1, 4, 2, 2, requires_grad=True)
    out = module(latents)
    weights = torch.randn_like(latents)
    (out.latents * weights).sum().backward()
    assert latents.grad is not None
    torch.testing.assert_close(latents.grad, weights)

    latents.grad = None
    module(latents).loss.backward()
    # d/dz of β·mean((z − e)²) is 2β(z − e)/n
    expected = 2 * 0.25 * (latents - module.decode(out.codes)).detach() / latents.numel()
    torch.testing.assert_close(latents.grad, expected)


def test_update_is_the_papers_by_hand() -> None:
    module = quantizer(number=2, dim=1, decay=0.9).train()
    module(torch.tensor([[[0.0, 10.0]]]).reshape(1, 1, 1, 2))
    order = module.codebook.flatten().argsort()
    module(torch.tensor([1.0, 1.0, 13.0]).reshape(1, 1, 1, 3))
    # after the first batch N = 1 and m = e = (0, 10), and that same batch updates nothing
    count = torch.tensor([0.9 * 1 + 0.1 * 2, 0.9 * 1 + 0.1 * 1])
    total = torch.tensor([0.9 * 0 + 0.1 * 2, 0.9 * 10 + 0.1 * 13])
    torch.testing.assert_close(module.mean_count[order], count)
    torch.testing.assert_close(module.codebook.flatten()[order], total / count)


def test_evaluation_changes_nothing() -> None:
    module = quantizer()
    module(torch.randn(1, 4, 6, 6))
    before = {name: value.clone() for name, value in module.state_dict().items()}
    module.eval()
    module(torch.randn(1, 4, 6, 6) * 5)
    for name, value in module.state_dict().items():
        assert torch.equal(value, before[name]), name


@pytest.mark.parametrize("number", [64, 512])
def test_no_collapse_on_clustered_data(number: int) -> None:
    clusters = torch.randn(256, 8) * 3
    module, tokens = trained(200, number, clusters)
    module.eval()
    codes = module(clusters.T.reshape(1, 8, 16, 16)).codes
    assert len(codes.unique()) >= 0.9 * min(number, 256)
    assert module.codebook.norm(dim=1).max() <= 2 * tokens.norm(dim=1).max()


def test_a_restarted_code_is_not_overwritten_by_its_stale_average() -> None:
    module = quantizer(number=2, dim=1).train()
    module(torch.tensor([0.0, 100.0]).reshape(1, 1, 1, 2))
    for _ in range(100):  # everything is near 0: the code at 100 dies and comes here
        module(torch.rand(1, 1, 8, 8))
    assert module.codebook.abs().max() < 1.5
    assert (module.mean_count > 0).all()


def test_resume_does_not_initialise_again() -> None:
    module = quantizer()
    module(torch.randn(1, 4, 6, 6))
    resumed = quantizer().train()
    resumed.load_state_dict(module.state_dict())
    far = torch.full((1, 4, 6, 6), 100.0)
    module(far), resumed(far)
    assert bool(resumed.initialised)
    assert torch.equal(module.codebook, resumed.codebook)


def test_fewer_tokens_than_codes_initialise_too() -> None:
    module = quantizer(number=64)
    out = module(torch.randn(1, 4, 3, 3))
    assert torch.isfinite(module.codebook).all()
    assert out.codes.max() < 64
