import math
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import entropy
from torch import Tensor

from tests.prior.cases import AGE, SITE
from vqmri.codes import code_tensors
from vqmri.evaluation import likelihood
from vqmri.evaluation.likelihood import (
    Likelihood,
    held_out_likelihood,
    inside,
    item_bits,
)
from vqmri.prior import Prior
from vqmri.prior.covariates import encode, to_json

COUNT = 7
GRIDS = [(4, 4, 2), (4, 4, 2), (2, 2, 1), (2, 2, 1)]


def prior(
    num_embeddings: Sequence[int], grids: Sequence[Sequence[int]] = GRIDS, **changes: Any
) -> Prior:
    arguments = {"channels": 8, "num_layers": 2, "kernel": 3, "radius": 1, "dropout": 0.5} | changes
    net = Prior(grids=grids, num_embeddings=num_embeddings, **arguments)
    for parameter in net.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return net


def held_out(net: Prior) -> tuple[list[Tensor], list[np.ndarray]]:
    random = np.random.default_rng(0)
    maps = [
        torch.from_numpy(random.integers(number, size=(COUNT, *grid)))
        if number
        else torch.from_numpy(random.normal(1, 0.3, size=(COUNT, *grid)).astype(np.float32))
        for grid, number in zip(net.grids, net.num_embeddings, strict=True)
    ]
    return maps, [random.random((COUNT, *grid)) < 0.5 for grid in net.grids]


@pytest.fixture
def _in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """The figures are compared with plain calls of the prior; hardware may have a bfloat16."""
    monkeypatch.setattr(likelihood, "mixed_precision", lambda device: nullcontext())


def test_inside_is_true_in_the_box_alone() -> None:
    mask = inside([((0, 2), (1, 3), (0, 1)), ((0, 3), (0, 4), (1, 2))], (3, 4, 2))
    assert mask.shape == (2, 3, 4, 2)
    assert mask.sum(axis=(1, 2, 3)).tolist() == [2 * 2 * 1, 3 * 4 * 1]
    assert mask[0, 1, 2, 0]
    assert not mask[0, 2, 2, 0]
    assert mask[1, :, :, 1].all()


def test_stored_codes_become_int64_and_real_gains_float32() -> None:
    gains, codes = np.array([[0.5, 2.0]], dtype=np.float32), np.array([[3, 65535]], dtype=np.uint16)
    found = code_tensors([gains, codes], [0, 65536])
    assert [values.dtype for values in found] == [torch.float32, torch.int64]
    assert [values.tolist() for values in found] == [gains.tolist(), codes.tolist()]


@pytest.mark.usefixtures("_in_float32")
@pytest.mark.parametrize("positions_per_batch", [8192, 150])
@pytest.mark.parametrize("temperature", [1.0, 0.5])
@pytest.mark.parametrize("num_embeddings", [(3, 6, 4, 5), (0, 6, 0, 5)], ids=str)
def test_bits_are_means_over_the_masks_of_each_maps_own(
    num_embeddings: tuple[int, ...],
    temperature: float,
    positions_per_batch: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(likelihood, "_POSITIONS_PER_BATCH", positions_per_batch)
    net = prior(num_embeddings, covariates=to_json([AGE, SITE]))
    maps, masks = held_out(net)
    net.fit_gains(maps)
    subjects = [{"age": 25 + 5 * i, "site": "abc"[i % 3]} for i in range(COUNT - 1)]
    rows = encode([AGE, SITE], [*subjects, {}])
    found = held_out_likelihood(net, maps, masks, rows, temperature)
    assert net.training

    net.eval()
    with torch.no_grad():
        one_by_one = [
            net([m[i : i + 1] for m in maps], rows[i : i + 1], temperature) for i in range(COUNT)
        ]
        without = net(maps, None, temperature)
    for index, mask in enumerate(masks):
        nats = np.concatenate([each[index].numpy() for each in one_by_one])
        assert found.bits[index] == pytest.approx(nats[mask].mean() / math.log(2), rel=1e-4)
        if num_embeddings[index]:
            plain = without[index].numpy()[mask].mean() / math.log(2)
            assert found.bits[index] != pytest.approx(plain, rel=1e-4)  # covariates were used
            counts = np.bincount(maps[index].numpy()[mask])
            assert found.marginal_bits[index] == pytest.approx(entropy(counts, base=2))
        else:
            assert math.isnan(found.marginal_bits[index])
    assert found.positions == [mask.sum() for mask in masks]


def test_bits_per_code_are_of_all_codes_together_and_of_no_real_gain() -> None:
    nan = math.nan
    found = Likelihood([-7.0, 3.0, -9.0, 1.0], [nan, 4.0, nan, 2.0], [30, 30, 10, 10])
    assert found.bits_per_code == pytest.approx((30 * 3.0 + 10 * 1.0) / 40)
    assert found.marginal_bits_per_code == pytest.approx((30 * 4.0 + 10 * 2.0) / 40)
    quantised = Likelihood([2.0, 3.0], [2.0, 4.0], [30, 30])
    assert quantised.bits_per_code == pytest.approx(2.5)


def test_the_mode_of_the_prior_is_kept_and_the_hardwares_precision_changes_little() -> None:
    net = prior([5], [(3, 4, 2)]).eval()
    maps, masks = held_out(net)
    rows = torch.zeros(COUNT, 0)
    with torch.no_grad():
        expected = net(maps)[0].numpy()[masks[0]].mean() / math.log(2)
    found = held_out_likelihood(net, maps, masks, rows)
    assert found.bits_per_code == pytest.approx(expected, rel=0.01)
    assert not net.training
    held_out_likelihood(net.train(), maps, masks, rows)
    assert net.training


def test_marginal_is_the_entropy_of_the_codes_in_the_mask() -> None:
    codes = [torch.tensor([0, 1, 2, 3] * 5 + [4] * 4).reshape(1, 3, 4, 2)]
    mask = codes[0].numpy() < 4
    found = held_out_likelihood(prior([5], [(3, 4, 2)]), codes, [mask], torch.zeros(1, 0))
    assert found.marginal_bits_per_code == pytest.approx(2.0)


@pytest.mark.usefixtures("_in_float32")
@pytest.mark.parametrize("positions_per_batch", [8192, 150])
@pytest.mark.parametrize("temperature", [1.0, 0.5])
@pytest.mark.parametrize("num_embeddings", [(3, 6, 4, 5), (0, 6, 0, 5)], ids=str)
def test_bits_of_an_item_are_those_of_its_codes_over_its_own_positions(
    num_embeddings: tuple[int, ...],
    temperature: float,
    positions_per_batch: int,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(likelihood, "_POSITIONS_PER_BATCH", positions_per_batch)
    net = prior(num_embeddings, covariates=to_json([AGE, SITE]))
    maps, masks = held_out(net)
    net.fit_gains(maps)
    rows = encode([AGE, SITE], [{"age": 25 + 5 * i, "site": "abc"[i % 3]} for i in range(COUNT)])
    found = item_bits(net, maps, masks, rows, temperature)
    assert net.training

    net.eval()
    sizes = []
    for item in range(COUNT):
        total, positions = 0.0, 0
        with torch.no_grad():
            nats = net([m[item : item + 1] for m in maps], rows[item : item + 1], temperature)
        for level, mask, number in zip(nats, masks, num_embeddings, strict=True):
            if number:
                for position in np.argwhere(mask[item]):
                    total += float(level[0][tuple(position)]) / math.log(2)
                    positions += 1
        assert found[item] == pytest.approx(total / positions, rel=1e-4)
        sizes.append(positions)
    assert len(set(sizes)) > 1
    whole = held_out_likelihood(net, maps, masks, rows, temperature)
    assert np.average(found, weights=sizes) == pytest.approx(whole.bits_per_code)
