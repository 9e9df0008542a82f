"""Vector arithmetic for compiled loops, in the precision of its arguments.

LLVM vectorises none of libm's functions without a vendor's library; these are polynomials and bit
operations, so it does. Sums may be reordered, always in the same way on the same machine.
"""

import math
from collections.abc import Callable
from inspect import unwrap
from typing import Any

import numpy as np
from numba import njit, types
from numba.extending import overload

_FAST = {"contract", "reassoc", "nsz"}
_LIMIT = 87.0  # e^±87 is still a normal float32
_LOG2_E = 1.0 / math.log(2.0)
_LN2_HIGH = 0.693359375  # few enough bits that its product with an exponent is exact
_LN2_LOW = -2.12194440054690583e-4
_TERMS = tuple(1.0 / math.factorial(k) for k in range(12))


def compiled(*, inner: bool = False) -> Callable[[Any], Any]:
    """`numba.njit`, kept on disk where a folder for it can be written, else compiled anew.

    inner: called by compiled code alone, so Python's way in need not be compiled
    """
    options = {
        "nogil": True,
        "fastmath": _FAST,
        "error_model": "numpy",
        "no_cpython_wrapper": inner,
        "no_cfunc_wrapper": True,
    }

    def decorate(function: Any) -> Any:
        function = unwrap(function)  # of a type checker's wrapper, which cannot be compiled
        try:
            return njit(cache=True, **options)(function)
        except RuntimeError:  # numba finds no place for its cache
            return njit(**options)(function)

    return decorate


def power_of_two(exponent: Any, like: Any) -> Any:
    """2^exponent, `exponent` a whole number, in the precision of `like`."""
    return type(like)(2.0**exponent)


@overload(power_of_two, inline="always")
def _power_of_two(exponent, like):  # type: ignore[no-untyped-def]  # numba compares signatures
    """The exponent's bits of an IEEE number, and none of the others."""
    if like == types.float32:
        return lambda exponent, like: np.int32(
            (np.int32(exponent) + np.int32(127)) << np.int32(23)
        ).view(np.float32)
    return lambda exponent, like: np.int64(
        (np.int64(exponent) + np.int64(1023)) << np.int64(52)
    ).view(np.float64)


@compiled()
def exponential(x: Any) -> Any:
    """e^x of a scalar, |x| cut off at 87; relative error under 1e-14, or 2e-7 in float32.

    x = n ln 2 + r with |r| ≤ ln 2 / 2, then Taylor's series of e^r and n as an exponent.
    """
    number = type(x)  # a bare constant would make it float64
    x = min(max(x, number(-_LIMIT)), number(_LIMIT))
    n = np.rint(x * number(_LOG2_E))
    r = x - n * number(_LN2_HIGH) - n * number(_LN2_LOW)
    series = number(_TERMS[11])
    series = series * r + number(_TERMS[10])
    series = series * r + number(_TERMS[9])
    series = series * r + number(_TERMS[8])
    series = series * r + number(_TERMS[7])
    series = series * r + number(_TERMS[6])
    series = series * r + number(_TERMS[5])
    series = series * r + number(_TERMS[4])
    series = series * r + number(_TERMS[3])
    series = series * r + number(_TERMS[2])
    series = series * r + number(_TERMS[1])
    series = series * r + number(_TERMS[0])
    return series * power_of_two(n, x)


@compiled()
def copy(out: Any, x: Any) -> None:
    """out = x for vectors, without the checks of an assignment to a slice."""
    for c in range(out.size):
        out[c] = x[c]


@compiled()
def add(out: Any, x: Any) -> None:
    """out += x for vectors."""
    for c in range(out.size):
        out[c] += x[c]


@compiled()
def add_product(out: Any, x: Any, weight: Any) -> None:
    """out += x @ weight for a vector x, eight rows of the weight at a time."""
    rows = x.size - x.size % 8
    for i in range(0, rows, 8):
        w0, w1, w2, w3 = weight[i], weight[i + 1], weight[i + 2], weight[i + 3]
        w4, w5, w6, w7 = weight[i + 4], weight[i + 5], weight[i + 6], weight[i + 7]
        x0, x1, x2, x3 = x[i], x[i + 1], x[i + 2], x[i + 3]
        x4, x5, x6, x7 = x[i + 4], x[i + 5], x[i + 6], x[i + 7]
        for o in range(out.size):
            out[o] += (
                x0 * w0[o] + x1 * w1[o] + x2 * w2[o] + x3 * w3[o]
                + x4 * w4[o] + x5 * w5[o] + x6 * w6[o] + x7 * w7[o]
            )  # fmt: skip
    for i in range(rows, x.size):
        w = weight[i]
        for o in range(out.size):
            out[o] += x[i] * w[o]


@compiled()
def multiply(out: Any, x: Any, weight: Any) -> None:
    """out = x @ weight; by BLAS, whose calls a row or two do not repay."""
    if x.shape[0] > 2:
        np.dot(x, weight, out)
        return
    for row in range(x.shape[0]):
        for c in range(out.shape[1]):
            out[row, c] = 0
        add_product(out[row], x[row], weight)


@compiled()
def gates(out: Any, total: Any) -> None:
    """out = tanh u · σ(w) for the halves u, w of `total`."""
    half = out.size
    one = out.dtype.type(1)
    for c in range(half):
        u, w = total[c], total[half + c]
        tanh = one - (one + one) / (exponential(u + u) + one)
        out[c] = tanh / (one + exponential(-w))


@compiled()
def silu(x: Any) -> None:
    """x ← x σ(x), in place."""
    one = x.dtype.type(1)
    for c in range(x.size):
        x[c] = x[c] / (one + exponential(-x[c]))


@compiled()
def softmax(x: Any) -> None:
    """x ← e^x / Σ e^x, in place."""
    highest = x[0]
    for c in range(x.size):
        highest = max(highest, x[c])
    total = x.dtype.type(0)
    for c in range(x.size):
        x[c] = exponential(x[c] - highest)
        total += x[c]
    for c in range(x.size):
        x[c] /= total
