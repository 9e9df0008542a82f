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
    counter = Usage([4, 2])
    counter.add([torch.tensor([[0, 1]]), torch.tensor([[0]])])
    counter.add([torch.tensor([[2, 3]]), torch.tensor([[0]])])
    assert counter.take() == {
        "usage_level_0": 1.0, "perplexity_level_0": pytest.approx(4.0),
        "usage_level_1": 0.5, "perplexity_level_1": 1.0,
    }  # fmt: skip
    counter.add([torch.tensor([[1, 1]]), torch.tensor([[1]])])
    assert counter.take()["usage_level_0"] == 0.25
