import math

import numpy as np
import pytest
from scipy.linalg import sqrtm

from vqmri.evaluation.distances import frechet_distance, mmd_squared_biased


def items(count: int, features: int, seed: int = 0, shift: float = 0.0) -> np.ndarray:
    random = np.random.default_rng(seed)
    mixing = random.standard_normal((features, features))
    return random.standard_normal((count, features)) @ mixing + shift


def by_scipy(a: np.ndarray, b: np.ndarray) -> float:
    covariances = [np.atleast_2d(np.cov(x, rowvar=False)) for x in (a, b)]
    root = sqrtm(covariances[0] @ covariances[1])
    means = np.square(a.mean(axis=0) - b.mean(axis=0)).sum()
    return float(means + np.trace(covariances[0] + covariances[1] - 2 * np.real(root)))


@pytest.mark.parametrize(("a", "b", "features"), [(40, 30, 5), (50, 60, 1), (200, 33, 16)])
def test_frechet_distance_equals_that_of_scipys_matrix_root(a: int, b: int, features: int) -> None:
    one, other = items(a, features), items(b, features, seed=1, shift=0.3)
    assert frechet_distance(one, other) == pytest.approx(by_scipy(one, other), rel=1e-8)
    assert frechet_distance(other, one) == pytest.approx(by_scipy(one, other), rel=1e-8)


def test_frechet_distance_of_fewer_items_than_features_needs_no_full_rank() -> None:
    # both live on the first two of 50 axes, where the distance is that of scipy
    one, other = items(6, 2), items(5, 2, seed=1, shift=1)
    wide = [np.concatenate([x, np.zeros((len(x), 48))], axis=1) for x in (one, other)]
    turn = np.linalg.qr(np.random.default_rng(2).standard_normal((50, 50)))[0]
    expected = by_scipy(one, other)
    assert frechet_distance(wide[0] @ turn, wide[1] @ turn) == pytest.approx(expected, rel=1e-8)


def test_one_item_repeated_has_the_distance_of_a_point() -> None:
    one = items(30, 4)
    point = np.full((9, 4), 2.0)
    expected = np.square(one.mean(axis=0) - 2).sum() + one.var(axis=0, ddof=1).sum()
    assert frechet_distance(one, point) == pytest.approx(expected)
    assert frechet_distance(point, point - 1) == pytest.approx(4)
    assert np.isfinite(mmd_squared_biased(one, point))


def test_a_set_has_no_distance_from_itself() -> None:
    one = items(30, 4)
    assert frechet_distance(one, one[::-1]) == pytest.approx(0, abs=1e-9)
    assert mmd_squared_biased(one, one) == 0


def kernel(x: np.ndarray, y: np.ndarray) -> float:
    return (sum(p * q for p, q in zip(x, y, strict=True)) / len(x) + 1) ** 3


def test_mmd_equals_double_loops() -> None:
    a, b = items(7, 3), items(5, 3, seed=1, shift=0.5)
    cross = np.mean([kernel(x, y) for x in a for y in b])
    within = sum(np.mean([kernel(x, y) for x in own for y in own]) for own in (a, b))
    assert mmd_squared_biased(a, b) == pytest.approx(within - 2 * cross)


def test_mmd_of_one_distribution_is_above_0() -> None:
    random = np.random.default_rng(0)
    sets = [(random.standard_normal((8, 2)), random.standard_normal((9, 2))) for _ in range(400)]
    assert min(mmd_squared_biased(a, b) for a, b in sets) > 0


def test_what_cannot_be_measured_is_nan() -> None:
    one = items(5, 3)
    assert math.isnan(frechet_distance(one, one[:1]))
    for metric in (frechet_distance, mmd_squared_biased):
        assert math.isnan(metric(one[:, :0], one[:, :0]))
    assert math.isnan(mmd_squared_biased(one, one[:0]))
