import math

import numpy as np
import pytest

from vqmri.evaluation.neighbourhoods import neighbourhoods


def brute(real: np.ndarray, fake: np.ndarray, k: int) -> tuple[float, float, float, float]:
    def radius(own: np.ndarray, i: int) -> float:
        others = [math.dist(own[i], own[j]) for j in range(len(own)) if j != i]
        return sorted(others)[k - 1]

    def inside(point: np.ndarray, own: np.ndarray) -> list[bool]:
        return [math.dist(point, own[i]) <= radius(own, i) for i in range(len(own))]

    balls = [inside(point, real) for point in fake]
    return (
        sum(any(ball) for ball in balls) / len(fake),
        sum(any(inside(point, fake)) for point in real) / len(real),
        sum(sum(ball) for ball in balls) / (k * len(fake)),
        sum(any(ball[i] for ball in balls) for i in range(len(real))) / len(real),
    )


@pytest.mark.parametrize(
    ("n", "m", "k", "shift"), [(20, 15, 5, 0.8), (12, 25, 3, 1.0), (9, 8, 1, 2.0)]
)
def test_all_four_equal_brute_force(n: int, m: int, k: int, shift: float) -> None:
    random = np.random.default_rng(n)
    real, fake = random.standard_normal((n, 2)), random.standard_normal((m, 2)) + shift
    expected = brute(real, fake, k)
    assert neighbourhoods(real, fake, k) == pytest.approx(expected)
    assert 0 < expected[3] < 1


def test_a_set_and_itself() -> None:
    real = np.random.default_rng(0).standard_normal((40, 3))
    found = neighbourhoods(real, real)
    assert found[:2] == (1, 1)
    assert found.coverage == 1
    assert found.density == pytest.approx(6 / 5)  # its 5 neighbours' balls in the mean and its own


def test_density_and_coverage_of_equal_sources_are_those_of_the_paper() -> None:
    """E[density] = 1, E[coverage] = 1 − ∏ (n − i)/(2n − i), near 1 − 2^−k (Naeem et al. 2020)."""
    random = np.random.default_rng(0)
    sets = random.standard_normal((150, 2, 60, 2))
    found = np.mean([neighbourhoods(real, fake, k=3) for real, fake in sets], axis=0)
    assert found[2] == pytest.approx(1, abs=0.03)
    expected = 1 - np.prod([(60 - i) / (120 - i) for i in (1, 2, 3)])
    assert found[3] == pytest.approx(expected, abs=0.02)


def test_a_far_set_has_nothing() -> None:
    real = np.random.default_rng(0).standard_normal((30, 3))
    assert neighbourhoods(real, real + 100) == (0, 0, 0, 0)


def test_one_real_item_repeated_covers_its_neighbours_alone() -> None:
    real = np.arange(40.0)[:, None]
    found = neighbourhoods(real, np.repeat(real[20:21], 40, axis=0), k=2)
    assert found.precision == 1
    assert found.recall == pytest.approx(1 / 40)
    assert found.coverage == pytest.approx(3 / 40)  # those of 19, 20 and 21


def test_an_outlier_raises_precision_and_neither_density_nor_coverage_much() -> None:
    real = np.random.default_rng(0).standard_normal((50, 2))
    real[0] = 1000
    fake = np.random.default_rng(1).standard_normal((50, 2)) + 500
    found = neighbourhoods(real, fake)
    assert found.precision == 1
    assert found.density == pytest.approx(1 / 5)
    assert found.coverage == pytest.approx(1 / 50)


def test_flat_features_and_too_few_items() -> None:
    flat = np.zeros((8, 4))
    assert neighbourhoods(flat, flat)[:2] == (1, 1)
    assert neighbourhoods(flat, flat + 1) == (0, 0, 0, 0)
    assert np.isnan(neighbourhoods(flat, flat[:5])).all()
    assert np.isfinite(neighbourhoods(flat, flat[:6])).all()
