import time
from itertools import combinations
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import jensenshannon

from vqmri.evaluation.structure import (
    nearest_difference,
    neighbour_divergence,
    pairwise_difference,
    unique_items,
)

GRIDS = [(4, 5), (3, 4, 2), (1, 6)]


def codes(
    count: int, grid: tuple[int, ...], number: int = 3, seed: int = 0, dtype: Any = np.int64
) -> np.ndarray:
    return np.random.default_rng(seed).integers(number, size=(count, *grid)).astype(dtype)


sets = st.builds(
    codes,
    st.integers(2, 9),
    st.sampled_from(GRIDS),
    st.integers(1, 5),
    st.integers(0, 99),
    st.sampled_from([np.uint8, np.int64]),
)


def dense_divergence(a: np.ndarray, b: np.ndarray, number: int) -> float:
    values = []
    for axis in range(1, a.ndim):
        if a.shape[axis] < 2:
            continue
        tables = []
        for whole in (a, b):
            table = np.zeros((number, number))
            for item in whole:
                for here in np.ndindex(*item.shape):
                    there = tuple(p + (i == axis - 1) for i, p in enumerate(here))
                    if there[axis - 1] < item.shape[axis - 1]:
                        table[item[here], item[there]] += 1
            tables.append(table.ravel())
        values.append(jensenshannon(*tables, base=2) ** 2)
    return float(np.mean(values))


@pytest.mark.parametrize("grid", GRIDS)
def test_divergence_equals_scipys_of_dense_tables(grid: tuple[int, ...]) -> None:
    one, other = codes(6, grid, 4), codes(9, grid, 3, seed=1, dtype=np.uint8)
    expected = dense_divergence(one, other, 4)
    assert neighbour_divergence(one, other, 4) == pytest.approx(expected)
    assert neighbour_divergence(other, one, 4) == pytest.approx(expected)


@given(sets)
def test_divergence_of_a_set_with_itself_is_zero_and_of_disjoint_ones_one(some: np.ndarray) -> None:
    assert neighbour_divergence(some, some, 5) == 0
    assert neighbour_divergence(some, some + 5, 10) == pytest.approx(1)


def test_divergence_sees_structure_that_marginals_hide() -> None:
    striped = np.zeros((8, 6, 6), np.int64)
    striped[::2, ::2] = striped[1::2, 1::2] = 1
    shuffled = np.random.default_rng(0).permuted(striped, axis=0)
    assert (shuffled.mean(axis=0) == striped.mean(axis=0)).all()
    assert neighbour_divergence(shuffled, striped, 2) > 0.2


def test_pairs_of_a_great_vocabulary_are_not_confused() -> None:
    # narrow types would wrap: 256 · 65,536 + 0 and 0 · 65,536 + 0 would be one pair in uint16
    one, other = np.array([[[256], [0]]], np.uint16), np.array([[[0], [0]]], np.uint16)
    assert neighbour_divergence(one, other, 65_536) == 1
    assert neighbour_divergence(one + np.uint16(65_535 - 256), one, 65_536) == 1


def test_divergence_without_neighbours_or_items_is_nan() -> None:
    one = codes(3, (1, 1))
    assert np.isnan(neighbour_divergence(one, one, 3))
    assert np.isnan(neighbour_divergence(codes(0, (2, 2)), codes(3, (2, 2)), 3))


def test_a_code_beyond_the_vocabulary_is_refused() -> None:
    with pytest.raises(ValueError, match="not below num_embeddings, 2"):
        neighbour_divergence(codes(9, (4, 5), 2), codes(9, (4, 5), 3), 2)


def test_items_are_unique_over_all_levels_together() -> None:
    fine = np.array([[[0, 1]], [[0, 1]], [[2, 1]], [[0, 1]]], np.uint8)
    coarse = np.array([[[7]], [[8]], [[7]], [[7]]], np.uint16)
    assert unique_items([fine]) == 2
    assert unique_items([coarse]) == 2
    assert unique_items([fine, coarse]) == 3
    assert unique_items([fine[:1], coarse[:1]]) == 1
    assert unique_items([fine[:0], coarse[:0]]) == 0


@given(sets)
def test_unique_items_equals_numpys(some: np.ndarray) -> None:
    assert unique_items([some, some]) == len(np.unique(some, axis=0))


@given(sets)
def test_pairwise_difference_equals_that_of_all_pairs(some: np.ndarray) -> None:
    expected = np.mean([(a != b).mean() for a, b in combinations(some, 2)])
    assert pairwise_difference(some) == pytest.approx(expected)


def test_extremes_of_pairwise_difference() -> None:
    assert pairwise_difference(np.full((5, 3, 2), 255, np.uint8)) == 0
    assert pairwise_difference(np.arange(4)[:, None, None] + np.zeros((4, 3, 2), np.int64)) == 1
    assert np.isnan(pairwise_difference(codes(1, (3, 2))))
    assert np.isnan(pairwise_difference(codes(0, (3, 2))))


@given(sets, st.integers(0, 99))
def test_nearest_difference_equals_brute_force(some: np.ndarray, seed: int) -> None:
    known = codes(7, some.shape[1:], 4, seed, np.uint16)
    expected = [min((a != b).mean() for b in known) for a in some]
    assert nearest_difference(some, known) == pytest.approx(expected)


def test_chunks_and_bytes_do_not_change_the_nearest_difference(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # more than 255 positions differ, so that a byte would wrap, and 256 differ to the last
    far, near = np.zeros((1, 600), np.int64), np.ones((5, 600), np.int64)
    near[3, :88] = 0
    near[4, :344] = 0
    assert nearest_difference(far, near[:3]) == [1]
    assert nearest_difference(far, near[:4])[0] == 512 / 600
    monkeypatch.setattr("vqmri.evaluation.structure._TRAINING_PER_CHUNK", 2)
    monkeypatch.setattr("vqmri.evaluation.structure._ITEMS_PER_CHUNK", 1)
    assert nearest_difference(far, near)[0] == 256 / 600
    assert nearest_difference(near[::-1], near[3:]).tolist() == pytest.approx(
        [0, 0, 88 / 600, 88 / 600, 88 / 600]
    )


def test_codes_that_differ_by_256_differ() -> None:
    assert nearest_difference(np.array([[1, 256]]), np.array([[1, 0]])) == [0.5]


def test_nearest_difference_of_nothing() -> None:
    assert np.isnan(nearest_difference(codes(2, (3, 2)), codes(0, (3, 2)))).all()
    assert nearest_difference(codes(0, (3, 2)), codes(2, (3, 2))).shape == (0,)


def test_nearest_difference_on_the_size_of_mnist_takes_seconds() -> None:
    training = codes(60_000, (7, 7), 512, dtype=np.uint16)
    start = time.perf_counter()
    found = nearest_difference(training[:1000], training)
    assert time.perf_counter() - start < 20
    assert (found == 0).all()
