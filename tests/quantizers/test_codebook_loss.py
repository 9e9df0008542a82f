import torch

from tests.quantizers.cases import COMMITMENT_COST, build, started
from vqmri.quantizers import CodebookLossQuantizer


def test_loss_and_the_codebooks_gradient_by_hand() -> None:
    module = started("codebook_loss", number=3)
    latents = torch.randn(2, 4, 5, 5)
    out = module(latents)
    out.loss.backward()
    codes = out.codes[0].flatten()
    tokens = latents.movedim(1, -1).reshape(-1, 4)
    differences = module.codebook.detach()[codes] - tokens
    torch.testing.assert_close(out.loss, (1 + COMMITMENT_COST) * differences.square().mean())
    # d/de_k of mean((sg[z] − e)²) is the sum of 2(e_k − z)/n over the tokens of code k
    expected = torch.zeros(3, 4).index_add_(0, codes, 2 * differences / latents.numel())
    assert module.codebook.grad is not None
    torch.testing.assert_close(module.codebook.grad, expected)


def test_an_unused_code_restarts_at_a_token() -> None:
    module = build("codebook_loss", number=4).train()
    assert isinstance(module, CodebookLossQuantizer)
    module(torch.randn(1, 4, 8, 8))
    with torch.no_grad():
        module.vectors[2] = 1e3  # nothing falls here
    for _ in range(229):  # 0.99²²⁹ is the last above a tenth, and one starts equal
        module(torch.randn(1, 4, 8, 8))
    assert module.vectors[2].max() > 100
    for _ in range(20):  # the mean use is 16 all along
        latents = torch.randn(1, 4, 8, 8)
        module(latents)
        if module.vectors[2].max() < 100:
            break
    tokens = latents.movedim(1, -1).reshape(-1, 4)
    assert (tokens == module.vectors[2]).all(dim=1).any()
    assert module.mean_count[2] > 10
