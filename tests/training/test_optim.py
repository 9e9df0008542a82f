"""The optimisers and the learning rate, against formulas by hand and torch's own."""

import pytest
import torch
from torch import nn, optim

from vqmri.quantizers import CodebookLossQuantizer
from vqmri.training.optim import Muon, adamw, orthogonal, warmup_cosine


@pytest.mark.parametrize("shape", [(6, 40), (40, 6), (16, 16), (1, 9)])
@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_singular_values_come_near_one_and_directions_stay(
    shape: tuple[int, int], scale: float
) -> None:
    rows, columns = shape
    u, _, v = torch.linalg.svd(torch.randn(shape), full_matrices=False)
    values = torch.logspace(0, -1.5, min(rows, columns))
    found = u.T @ orthogonal(scale * u @ values.diag() @ v) @ v.T
    assert ((found.diagonal() > 0.65) & (found.diagonal() < 1.25)).all()
    assert (found - found.diagonal().diag()).abs().max() < 1e-3


def test_zeros_stay_zeros() -> None:
    assert (orthogonal(torch.zeros(3, 5)) == 0).all()


def test_a_matrix_moves_as_by_torchs_own_muon() -> None:
    """Which computes in bfloat16."""
    ours, theirs = nn.Linear(8, 12, bias=False), nn.Linear(8, 12, bias=False)
    theirs.load_state_dict(ours.state_dict())
    own = Muon(ours, 0.1)
    own.param_groups[0]["lr"] = 0.01
    other = optim.Muon(
        theirs.parameters(), lr=0.01, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"
    )
    start = ours.weight.detach().clone()
    for _ in range(5):
        batch = torch.randn(32, 8)
        for model, optimiser in ((ours, own), (theirs, other)):
            optimiser.zero_grad()
            model(batch).square().sum().backward()
            optimiser.step()
    moved, expected = ours.weight - start, theirs.weight - start
    assert (moved - expected).norm() < 0.05 * expected.norm()


def test_a_kernel_moves_as_the_matrix_of_its_first_axis_by_all_others() -> None:
    convolution, linear = nn.Conv3d(4, 6, 3, bias=False), nn.Linear(4 * 27, 6, bias=False)
    linear.weight.data = convolution.weight.data.flatten(1).clone()
    for model in (convolution, linear):
        optimiser = Muon(model, 0.1)
        optimiser.param_groups[0]["lr"] = 0.01
        for seed in range(3):
            gradient = torch.randn(6, 4 * 27, generator=torch.Generator().manual_seed(seed))
            model.weight.grad = gradient.view_as(model.weight)
            optimiser.step()
    assert torch.equal(convolution.weight.flatten(1), linear.weight)


def test_vectors_move_as_by_adam() -> None:
    ours, theirs = nn.LayerNorm(7), nn.LayerNorm(7)
    own = Muon(ours, 0.1)
    own.param_groups[1]["lr"] = 0.01
    other = optim.Adam(theirs.parameters(), lr=0.01, betas=(0.9, 0.99))
    for _ in range(10):
        batch = torch.randn(3, 7)
        for model, optimiser in ((ours, own), (theirs, other)):
            optimiser.zero_grad()
            (model(batch) - batch.roll(1)).square().sum().backward()
            optimiser.step()
    for mine, its in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, its)


def test_what_has_no_gradient_stays() -> None:
    model = nn.Linear(3, 4)
    before = model.weight.detach().clone()
    optimiser = Muon(model, 0.1)
    optimiser.param_groups[0]["lr"] = 0.1
    optimiser.step()
    assert torch.equal(model.weight, before)


def test_codebooks_are_no_matrices() -> None:
    codebook = CodebookLossQuantizer(8, 3, commitment_cost=0.25, initialisation="data")
    matrices, rest = (group["params"] for group in Muon(codebook, 0.1).param_groups)
    assert not matrices
    assert [p.shape for p in rest] == [(8, 3)]


def test_learning_rate_rises_then_falls_to_nothing() -> None:
    rate = warmup_cosine(1.0, 10, 100)
    rates = [rate(step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1, rel=0.01)
    assert max(rates) == pytest.approx(1.0, rel=0.03)
    assert rates.index(max(rates)) == 9
    assert rates[-1] < 0.001


def test_vectors_do_not_decay() -> None:
    model = nn.Linear(3, 3)
    decays = {
        p.ndim: g["weight_decay"] for g in adamw(model, 0.1).param_groups for p in g["params"]
    }
    assert decays == {2: 0.1, 1: 0.0}
