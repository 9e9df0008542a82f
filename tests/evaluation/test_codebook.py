import numpy as np
import pytest
import torch
from scipy.stats import entropy

from vqmri.evaluation.codebook import Usage, entropy_bits, perplexity, usage


def test_entropy_equals_scipys() -> None:
    counts = np.random.default_rng(0).integers(0, 50, 200)
    assert entropy_bits(counts) == pytest.approx(entropy(counts, base=2))
    assert perplexity(counts) == pytest.approx(2 ** entropy(counts, base=2))


def test_extremes() -> None:
    assert perplexity(np.array([5, 5, 5, 5])) == pytest.approx(4)
    assert perplexity(np.array([0, 9, 0])) == 1
    assert usage(np.array([0, 9, 0, 1])) == 0.5


def test_an_epoch_is_counted_whole_and_then_anew() -> None:
    counter = Usage(["level_0", "level_1"], [4, 2])
    counter.add([torch.tensor([[0, 1]]), torch.tensor([[0]])])
    counter.add([torch.tensor([[2, 3]]), torch.tensor([[0]])])
    assert counter.take() == {
        "usage_level_0": 1.0, "perplexity_level_0": pytest.approx(4.0),
        "usage_level_1": 0.5, "perplexity_level_1": 1.0,
    }  # fmt: skip
    counter.add([torch.tensor([[1, 1]]), torch.tensor([[1]])])
    assert counter.take()["usage_level_0"] == 0.25


def test_quantised_gains_are_counted_and_real_ones_left_out() -> None:
    counter = Usage(["level_0_gain", "level_0", "level_1_gain", "level_1"], [0, 4, 3, 2])
    gains = torch.tensor([[0.5, -1.0]])
    for code in (0, 1):
        counter.add([gains, *(torch.full((1, 2), code) for _ in range(3))])
    assert counter.take() == {
        "usage_level_0": 0.5, "perplexity_level_0": pytest.approx(2.0),
        "usage_level_1_gain": pytest.approx(2 / 3), "perplexity_level_1_gain": pytest.approx(2.0),
        "usage_level_1": 1.0, "perplexity_level_1": pytest.approx(2.0),
    }  # fmt: skip


@pytest.mark.parametrize("dtype", [torch.uint8, torch.uint16, torch.int64])
def test_codes_count_in_the_types_that_they_are_stored_in(dtype: torch.dtype) -> None:
    counter = Usage(["level_0"], [200])
    counter.add([torch.tensor([[0, 199], [199, 7]]).to(dtype)])
    assert counter.take()["usage_level_0"] == pytest.approx(3 / 200)
