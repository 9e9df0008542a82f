import tracemalloc

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vqmri.evaluation.marginals import PositionMarginals

TRAINING = np.array([[[0, 1]], [[0, 2]], [[0, 2]]], np.uint8)  # 3 items on the grid (1, 2)


def test_bits_are_those_of_the_smoothed_counts() -> None:
    found = PositionMarginals(TRAINING, 4).bits(np.array([[[0, 1]], [[3, 2]]]))
    p = np.array([[[3.25, 1.25]], [[0.25, 2.25]]]) / 4
    assert found == pytest.approx(-np.log2(p))


@given(st.integers(0, 6), st.sampled_from([(), (3,), (2, 3), (2, 1, 3)]), st.integers(1, 9))
def test_probabilities_add_up_to_one(count: int, grid: tuple[int, ...], number: int) -> None:
    training = np.random.default_rng(0).integers(number, size=(count, *grid))
    marginals = PositionMarginals(training, number)
    every = np.broadcast_to(np.arange(number).reshape(-1, *[1] * len(grid)), (number, *grid))
    assert np.exp2(-marginals.bits(every)).sum(axis=0) == pytest.approx(np.ones(grid))


def test_draws_have_these_frequencies_and_positions_are_independent() -> None:
    marginals = PositionMarginals(TRAINING, 4)
    count = 40_000
    drawn = marginals.draw(count, np.random.default_rng(0))
    assert drawn.shape == (count, 1, 2)
    assert drawn.dtype == np.int64
    every = np.broadcast_to(np.arange(4)[:, None, None], (4, 1, 2))
    p = np.exp2(-marginals.bits(every))[:, 0].astype(np.float64)
    joint = np.zeros((4, 4))
    np.add.at(joint, (drawn[:, 0, 0], drawn[:, 0, 1]), 1 / count)
    assert joint == pytest.approx(np.outer(p[:, 0], p[:, 1]), abs=0.01)


def test_without_training_items_every_code_is_as_likely() -> None:
    marginals = PositionMarginals(np.empty((0, 2, 2), np.uint16), 8)
    drawn = marginals.draw(500, np.random.default_rng(0))
    assert set(drawn.ravel()) == set(range(8))
    assert marginals.bits(drawn) == pytest.approx(np.full(drawn.shape, 3.0))


def test_items_that_are_all_equal_are_drawn_almost_always() -> None:
    training = np.full((999, 4, 3, 2), 5, np.uint8)
    marginals = PositionMarginals(training, 16)
    assert (marginals.draw(100, np.random.default_rng(0)) == 5).mean() > 0.99
    assert marginals.bits(training[:1]).max() < 0.01


def test_equal_seeds_draw_equal_codes() -> None:
    marginals = PositionMarginals(TRAINING, 4)
    one, other = (marginals.draw(9, np.random.default_rng(3)) for _ in range(2))
    assert (one == other).all()
    assert marginals.draw(0, np.random.default_rng(3)).shape == (0, 1, 2)


@pytest.mark.parametrize("faulty", [np.array([[[0, 4]]]), np.array([[[-1, 0]]])])
def test_a_code_outside_the_vocabulary_is_refused(faulty: np.ndarray) -> None:
    with pytest.raises(ValueError, match="outside 0 … 3"):
        PositionMarginals(faulty, 4)
    with pytest.raises(ValueError, match="outside 0 … 3"):
        PositionMarginals(TRAINING, 4).bits(faulty)


def test_codes_on_another_grid_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(2, 1\), expected \(1, 2\)"):
        PositionMarginals(TRAINING, 4).bits(TRAINING.transpose(0, 2, 1))


def test_memory_is_little_more_than_the_table() -> None:
    training = np.random.default_rng(0).integers(2048, size=(20, 10, 14, 10))
    tracemalloc.start()
    try:
        marginals = PositionMarginals(training, 2048)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert marginals.draw(1, np.random.default_rng(0)).shape == (1, 10, 14, 10)
    assert peak < 1.2 * 1400 * 2048 * 4
