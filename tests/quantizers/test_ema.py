import pytest
import torch

from tests.quantizers.cases import build, started
from vqmri.quantizers import EMAQuantizer, one_update


def quantizer(number: int, dim: int) -> EMAQuantizer:
    return EMAQuantizer(number, dim, decay=0.9, commitment_cost=0.25, initialisation="data")


def test_update_is_the_papers_by_hand() -> None:
    module = quantizer(2, 1).train()
    module(torch.tensor([0.0, 10.0]).reshape(1, 1, 1, 2))
    order = module.codebook.flatten().argsort()
    module(torch.tensor([1.0, 1.0, 13.0]).reshape(1, 1, 1, 3))
    # after the first batch N = 1 and m = e = (0, 10), and that same batch updates nothing
    count = torch.tensor([0.9 * 1 + 0.1 * 2, 0.9 * 1 + 0.1 * 1])
    total = torch.tensor([0.9 * 0 + 0.1 * 2, 0.9 * 10 + 0.1 * 13])
    torch.testing.assert_close(module.ema.mean_count[order], count)
    torch.testing.assert_close(module.ema.mean_sum.flatten()[order], total)
    torch.testing.assert_close(module.codebook.flatten()[order], total / count)


def test_a_restarted_code_is_not_overwritten_by_its_stale_average() -> None:
    module = quantizer(2, 1).train()
    module(torch.tensor([0.0, 100.0]).reshape(1, 1, 1, 2))
    restarts = 0
    for _ in range(100):  # everything is near 0: the code at 100 dies and comes here
        before = module.codebook.clone()
        module(torch.rand(1, 1, 8, 8))
        restarts += bool((before - module.codebook).abs().max() > 50)
    assert restarts == 1
    assert module.codebook.abs().max() < 1.5
    assert (module.ema.mean_count > 0).all()


def test_a_code_restarts_only_below_a_tenth_of_the_mean_use() -> None:
    module = quantizer(2, 1).train()
    tokens = torch.cat([torch.zeros(90), torch.full((10,), 100.0)])  # uses of 1.8 and 0.2 means
    for _ in range(200):
        module(tokens.reshape(1, 1, 10, 10))
    assert sorted(module.codebook.flatten().round().tolist()) == [0, 100]


def test_average_and_vectors_stay_consistent() -> None:
    module = started("ema")
    assert isinstance(module, EMAQuantizer)
    means = module.ema.mean_sum / module.ema.mean_count.unsqueeze(1)
    torch.testing.assert_close(means, module.codebook)


@pytest.mark.parametrize("kind", ["ema", "projected"])
def test_parts_within_one_update_move_the_vectors_as_the_whole_batch_does(kind: str) -> None:
    whole, parts = (build(kind, number=8, decay=0.5).train() for _ in range(2))
    whole(torch.randn(6, 4, 3, 3, 3))
    parts.load_state_dict(whole.state_dict())
    batch = torch.randn(6, 4, 3, 3, 3)
    torch.manual_seed(1)
    whole(batch)
    torch.manual_seed(1)
    with one_update(parts):
        codes = [parts(part).codes[-1] for part in batch.split(2)]
        assert not torch.equal(parts.codebook, whole.codebook)
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(parts.state_dict()[name], value, rtol=1e-5, atol=1e-6)
    assert torch.cat(codes).shape == (6, 3, 3, 3)
    parts.eval()
    with one_update(parts):
        parts(batch)


@pytest.mark.parametrize("kind", ["ema", "projected", "codebook_loss"])
def test_after_an_error_within_one_update_nothing_has_moved(kind: str) -> None:
    module = build(kind, number=8).train()
    module(torch.randn(6, 4, 3, 3, 3))
    before = {name: value.clone() for name, value in module.state_dict().items()}

    def cut() -> None:
        with one_update(module):
            module(torch.randn(6, 4, 3, 3, 3))
            raise RuntimeError("cut")

    with pytest.raises(RuntimeError, match="cut"):
        cut()
    assert all(torch.equal(value, before[n]) for n, value in module.state_dict().items())
    module(torch.randn(6, 4, 3, 3, 3))
    assert any(not torch.equal(value, before[n]) for n, value in module.state_dict().items())


def test_the_codebook_loss_counts_parts_as_one_batch() -> None:
    whole, parts = (build("codebook_loss", number=8).train() for _ in range(2))
    whole(torch.randn(6, 4, 3, 3, 3))
    parts.load_state_dict(whole.state_dict())
    for _ in range(5):
        batch = torch.randn(6, 4, 3, 3, 3)
        whole(batch)
        with one_update(parts):
            for part in batch.split(2):
                parts(part)
        torch.testing.assert_close(parts.mean_count, whole.mean_count)
