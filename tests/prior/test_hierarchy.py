from itertools import product

import numpy as np
import pytest
import torch

from vqmri.prior import Prior, nats_per_code
from vqmri.prior.objective import bits


def two_levels() -> Prior:
    prior = Prior(
        grids=[(4, 4, 2), (2, 2, 1)],
        num_embeddings=[7, 5],
        channels=6,
        num_layers=4,
        kernel=3,
        radius=2,
        dropout=0.0,
    ).double()
    for parameter in prior.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return prior.eval()


def codes() -> list[torch.Tensor]:
    return [torch.randint(7, (2, 4, 4, 2)), torch.randint(5, (2, 2, 2, 1))]


def test_logits_have_their_shapes() -> None:
    logits = two_levels()(codes())
    assert [tuple(level.shape) for level in logits] == [(2, 7, 4, 4, 2), (2, 5, 2, 2, 1)]


def test_top_does_not_see_the_finer_level_and_the_finer_one_sees_all_of_the_top() -> None:
    prior, given = two_levels(), codes()
    before = prior(given)
    finer_changed = [(given[0] + 1) % 7, given[1]]
    assert torch.equal(prior(finer_changed)[1], before[1])
    for position in product(range(2), range(2), range(1)):
        top = given[1].clone()
        top[(0, *position)] = (top[(0, *position)] + 1) % 5
        after = prior([given[0], top])[0]
        assert not torch.equal(after[0], before[0][0])
        assert torch.equal(after[1], before[0][1])  # the other item of the batch is another scan


def test_the_finer_level_is_causal_in_itself() -> None:
    prior, given = two_levels(), codes()
    before = prior(given)[0]
    for position in product(range(4), range(4), range(2)):
        changed = given[0].clone()
        changed[(0, *position)] = (changed[(0, *position)] + 1) % 7
        after = prior([changed, given[1]])[0]
        same = (after[0] == before[0]).all(dim=0)
        for other in product(range(4), range(4), range(2)):
            if other <= position:
                assert same[other], (position, other)


def test_nats_of_uniform_logits_are_log_k() -> None:
    given = [torch.randint(8, (3, 4, 5))]
    logits = [torch.zeros(3, 8, 4, 5)]
    assert float(nats_per_code(logits, given)) == pytest.approx(np.log(8))
    assert torch.allclose(bits(logits[0], given[0]), torch.full((3, 4, 5), 3.0))


def test_levels_count_by_their_positions() -> None:
    given = [torch.zeros(1, 3, 3, dtype=torch.long), torch.zeros(1, 1, 1, dtype=torch.long)]
    logits = [torch.zeros(1, 2, 3, 3), torch.zeros(1, 4, 1, 1)]
    assert float(nats_per_code(logits, given)) == pytest.approx((9 * np.log(2) + np.log(4)) / 10)
