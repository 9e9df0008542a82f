import numpy as np
import pytest
import torch

from vqmri.evaluation.likelihood import held_out_likelihood, inside
from vqmri.prior import Prior
from vqmri.prior.objective import bits


def prior() -> Prior:
    return Prior(
        grids=[(3, 4, 2)], num_embeddings=[5], channels=8, num_layers=2, kernel=3, radius=1,
        dropout=0.5,
    )  # fmt: skip


def test_inside_is_true_in_the_box_alone() -> None:
    mask = inside([((0, 2), (1, 3), (0, 1))], (3, 4, 2))
    assert mask.shape == (1, 3, 4, 2)
    assert mask.sum() == 2 * 2 * 1
    assert mask[0, 1, 2, 0]
    assert not mask[0, 2, 2, 0]


def test_mean_over_the_mask_of_bits_per_position() -> None:
    net = prior()
    codes = [torch.randint(5, (7, 3, 4, 2))]
    masks = [np.random.default_rng(0).random((7, 3, 4, 2)) < 0.5]
    net.eval()
    with torch.no_grad():
        per_position = bits(net(codes)[0], codes[0]).numpy()
    net.train()
    found = held_out_likelihood(net, codes, masks)
    # evaluation runs in bfloat16 where the hardware has it
    assert found.bits_per_code == pytest.approx(per_position[masks[0]].mean(), rel=0.01)
    assert found.positions == masks[0].sum()
    assert net.training


def test_marginal_is_the_entropy_of_the_codes_in_the_mask() -> None:
    codes = [torch.tensor([0, 1, 2, 3] * 6).reshape(1, 3, 4, 2)]
    mask = np.ones((1, 3, 4, 2), dtype=bool)
    found = held_out_likelihood(prior(), codes, [mask])
    assert found.marginal_bits_per_code == pytest.approx(2.0)
