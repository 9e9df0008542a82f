import numpy as np
import pytest
import torch

from vqmri.prior.objective import nats, nats_per_code


def test_nats_are_minus_the_logarithm_of_the_softmax() -> None:
    logits, codes = torch.randn(2, 5, 3, 4), torch.randint(5, (2, 3, 4))
    probabilities = np.exp(logits.double().numpy())
    probabilities /= probabilities.sum(axis=1, keepdims=True)
    expected = -np.log(np.take_along_axis(probabilities, codes.numpy()[:, None], axis=1))[:, 0]
    np.testing.assert_allclose(nats(logits, codes).numpy(), expected, rtol=1e-5)


def test_nats_of_uniform_logits_are_log_k() -> None:
    found = nats(torch.zeros(3, 8, 4, 5), torch.randint(8, (3, 4, 5)))
    assert torch.allclose(found, torch.full((3, 4, 5), np.log(8)))


def test_half_precision_does_not_reach_the_logarithm() -> None:
    logits, codes = torch.randn(2, 50, 6).bfloat16(), torch.randint(50, (2, 6))
    assert torch.equal(nats(logits, codes), nats(logits.float(), codes))


def test_maps_count_by_their_positions_and_real_gains_not_at_all() -> None:
    found = [torch.full((2, 3, 3), 1.0), torch.full((2, 1, 1), 100.0), torch.full((2, 1, 1), 2.0)]
    assert float(nats_per_code(found, [2, 0, 4])) == pytest.approx((9 * 1 + 2) / 10)
    assert float(nats_per_code(found, [2, 3, 4])) == pytest.approx((9 * 1 + 100 + 2) / 11)
