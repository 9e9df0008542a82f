from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor

from tests.prior.cases import AGE
from vqmri.errors import DivergedError
from vqmri.evaluation import overtrained
from vqmri.evaluation.likelihood import item_bits
from vqmri.evaluation.membership import Membership, flagged, membership
from vqmri.evaluation.overtrained import overtrain
from vqmri.prior import Prior
from vqmri.prior.covariates import encode, to_json

MEMBERS, COUNT, NUMBER = 4, 20, 6
GRIDS = ((4, 4, 4), (2, 2, 2))
ARGUMENTS: dict[str, Any] = {
    "grids": GRIDS,
    "num_embeddings": (NUMBER, NUMBER),
    "channels": 8,
    "num_layers": 2,
    "kernel": 3,
    "radius": 1,
    "dropout": 0.5,
    "covariates": to_json([AGE]),
    "condition_dropout": 0.5,
}
ROWS = encode([AGE], [{"age": 30.0 + i % 3} for i in range(COUNT)])


@pytest.fixture(autouse=True)
def _on_one_core(monkeypatch: pytest.MonkeyPatch) -> None:
    """So small a prior gains nothing by a second thread and loses when that one has to wait."""
    monkeypatch.setattr(overtrained, "choose_device", lambda: torch.device("cpu"))
    torch.set_num_threads(1)


def structured(seed: int = 0) -> list[Tensor]:
    """One smooth field that all items share, and a smooth one of each item's own."""
    random = np.random.default_rng(seed)
    maps = []
    for grid in GRIDS:
        shared = gaussian_filter(random.normal(size=grid), 1)
        own = gaussian_filter(random.normal(size=(COUNT, *grid)), (0, 0.7, 0.7, 0.7))
        fields = shared / shared.std() + own / own.std()
        edges = np.quantile(fields, np.linspace(0, 1, NUMBER + 1)[1:-1])
        maps.append(torch.from_numpy(np.digitize(fields, edges)))
    return maps


def first(maps: list[Tensor]) -> list[Tensor]:
    return [values[:MEMBERS] for values in maps]


def attacked(prior: Prior, maps: list[Tensor]) -> Membership:
    masks = [np.ones(values.shape, bool) for values in maps]
    bits = item_bits(prior, maps, masks, ROWS)
    people = [str(i) for i in range(COUNT)]
    sides = bits[:MEMBERS], bits[MEMBERS:], people[:MEMBERS], people[MEMBERS:]
    return membership(*sides, seed=0)


def test_items_known_by_heart_are_flagged_and_those_of_an_untrained_prior_are_not() -> None:
    maps = structured()
    prior = overtrain(ARGUMENTS, first(maps), ROWS[:MEMBERS], steps=300, seed=0, learning_rate=2e-2)
    found = attacked(prior, maps)
    assert found.auc >= 0.9
    assert flagged(found, 0.9)
    assert not prior.training
    bits = item_bits(
        prior, first(maps), [np.ones(v.shape, bool) for v in first(maps)], ROWS[:MEMBERS]
    )
    assert bits.mean() < 0.1 * np.log2(NUMBER)  # it stopped because it knew them

    untrained = overtrain(ARGUMENTS, first(maps), ROWS[:MEMBERS], steps=0, seed=0)
    assert not flagged(attacked(untrained, maps), 0.5)


def test_equal_seeds_give_equal_weights_and_the_random_state_is_kept() -> None:
    maps = first(structured())
    before = torch.get_rng_state()
    one, same, other = (
        overtrain(ARGUMENTS, maps, ROWS[:MEMBERS], steps=3, seed=seed).state_dict()
        for seed in (1, 1, 2)
    )
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)
    assert ARGUMENTS["dropout"] == 0.5


def test_real_gains_are_fitted_and_left_out_of_the_loss() -> None:
    codes = structured()[0][:MEMBERS]
    gains = 2 + codes.float()  # of every code its own, so that none of them varies
    arguments = ARGUMENTS | {"grids": (GRIDS[0], GRIDS[0]), "num_embeddings": (0, NUMBER)}
    prior = overtrain(arguments, [gains, codes], ROWS[:MEMBERS], steps=2, seed=0)
    mean = prior.get_buffer("maps.0.mean")
    assert mean.tolist() == pytest.approx([2 + code for code in range(NUMBER)])
    with torch.no_grad():
        nats = prior([gains, codes], ROWS[:MEMBERS])
    assert nats[0].mean() < 0
    assert nats[1].mean() > 0


def test_a_diverged_training_is_an_error() -> None:
    maps = first(structured())
    with pytest.raises(DivergedError, match="overtrained prior: the loss is nan"):
        overtrain(ARGUMENTS, maps, ROWS[:MEMBERS], steps=9, seed=0, learning_rate=1e30)
