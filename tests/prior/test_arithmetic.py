"""Compiled arithmetic against NumPy's."""

import numpy as np
import pytest

from vqmri.prior.arithmetic import add_product, exponential, gates, multiply, silu, softmax

precisions = pytest.mark.parametrize(
    ("dtype", "tolerance"), [(np.float32, 4e-7), (np.float64, 2e-14)]
)


@precisions
def test_the_exponential_is_right_to_the_last_bits(dtype: type, tolerance: float) -> None:
    for x in np.linspace(-86, 86, 2001).astype(dtype):
        found = exponential(x)
        assert found == pytest.approx(
            float(np.exp(np.float64(x))), rel=max(tolerance, 4e-7 if dtype is np.float32 else 0)
        )


@precisions
def test_the_exponential_neither_overflows_nor_underflows(dtype: type, tolerance: float) -> None:
    assert 0 < exponential(dtype(-1e4)) < 1e-37
    assert 1e37 < exponential(dtype(1e4)) < 1e38
    assert exponential(dtype(0)) == 1


@precisions
def test_gates_silu_and_softmax(dtype: type, tolerance: float) -> None:
    x: np.ndarray = (np.random.default_rng(0).normal(size=38) * 20).astype(dtype)
    wide = x.astype(np.float64)
    sigmoid = 1 / (1 + np.exp(-wide))
    out: np.ndarray = np.empty(19, dtype)
    gates(out, x)
    np.testing.assert_allclose(out, np.tanh(wide[:19]) * sigmoid[19:], rtol=0, atol=tolerance)
    y = x.copy()
    silu(y)
    np.testing.assert_allclose(y, wide * sigmoid, rtol=0, atol=tolerance * 100)
    softmax(x)
    expected = np.exp(wide - wide.max())
    np.testing.assert_allclose(x, expected / expected.sum(), rtol=0, atol=tolerance)


@precisions
@pytest.mark.parametrize("rows", [1, 2, 3, 9])
@pytest.mark.parametrize(("size", "outputs"), [(1, 1), (8, 5), (19, 33)])
def test_products(dtype: type, tolerance: float, rows: int, size: int, outputs: int) -> None:
    random = np.random.default_rng(0)
    x: np.ndarray = random.normal(size=(rows, size)).astype(dtype)
    weight: np.ndarray = random.normal(size=(size, outputs)).astype(dtype)
    expected = x.astype(np.float64) @ weight
    out: np.ndarray = np.full((rows, outputs), np.nan, dtype)
    multiply(out, x, weight)
    np.testing.assert_allclose(out, expected, rtol=0, atol=tolerance * 20)
    add_product(out[0], x[0], weight)
    np.testing.assert_allclose(out[0], 2 * expected[0], rtol=0, atol=tolerance * 40)
