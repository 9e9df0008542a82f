from typing import Any

import numpy as np
import pytest

from vqmri.scans.check import MAX_VOXELS, REFUSALS, Refused, check_header, check_voxels

SINGULAR = np.diag([1.0, 0.0, 1.0, 1.0])
NOT_FINITE = np.diag([1.0, np.nan, 1.0, 1.0])


def test_a_refusal_says_its_code_and_reason() -> None:
    refusal = Refused("constant", "every voxel is 3")
    assert (refusal.code, refusal.reason) == ("constant", "every voxel is 3")
    assert str(refusal) == "constant: every voxel is 3"


def test_a_refusal_has_a_code_of_the_table() -> None:
    with pytest.raises(ValueError, match="unknown refusal 'ugly'"):
        Refused("ugly", "it is ugly")


@pytest.mark.parametrize("shape", [(2, 2, 2), (5, 6, 7), (5, 6, 7, 1), (5, 6, 7, 1, 1)])
@pytest.mark.parametrize("dtype", ["uint8", ">i2", "float32", "float64"])
def test_a_good_header_passes(shape: tuple[int, ...], dtype: str) -> None:
    check_header(shape, np.dtype(dtype), np.eye(4))


@pytest.mark.parametrize(
    ("shape", "dtype", "affine", "code"),
    [
        ((32767, 32767, 32767), "uint8", np.eye(4), "too-large"),
        # As a product of int64 this one is 0.
        ((2**16, 2**16, 2**16, 2**16), "uint8", np.eye(4), "too-large"),
        ((MAX_VOXELS, 2, 2), "uint8", np.eye(4), "too-large"),
        ((8, 8), "uint8", np.eye(4), "not-3d"),
        ((), "uint8", np.eye(4), "not-3d"),
        ((8, 8, 1), "uint8", np.eye(4), "not-3d"),
        ((1, 8, 8), "uint8", np.eye(4), "not-3d"),
        ((8, 8, 0), "uint8", np.eye(4), "not-3d"),
        ((-8, 8, 8), "uint8", np.eye(4), "not-3d"),
        ((8, 8, 8, 2), "uint8", np.eye(4), "not-3d"),
        ((8, 8, 8, 1, 3), "uint8", np.eye(4), "not-3d"),
        ((8, 8, 8), "complex64", np.eye(4), "not-real"),
        ((8, 8, 8), "u1,u1,u1", np.eye(4), "not-real"),
        ((8, 8, 8), "uint8", None, "no-affine"),
        ((8, 8, 8), "uint8", SINGULAR, "bad-affine"),
        ((8, 8, 8), "uint8", NOT_FINITE, "bad-affine"),
    ],
)
def test_a_bad_header_is_refused(
    shape: tuple[int, ...], dtype: str, affine: np.ndarray | None, code: str
) -> None:
    with pytest.raises(Refused) as caught:
        check_header(shape, np.dtype(dtype), affine)
    assert caught.value.code == code
    assert code in REFUSALS


@pytest.mark.parametrize(
    ("value", "code"), [(np.nan, "not-finite"), (np.inf, "not-finite"), (-np.inf, "not-finite")]
)
def test_one_bad_voxel_is_refused(value: float, code: str) -> None:
    data: np.ndarray[Any, Any] = np.arange(27, dtype=np.float32).reshape(3, 3, 3)
    check_voxels(data)
    data[1, 2, 0] = value
    with pytest.raises(Refused, match="1 voxels") as caught:
        check_voxels(data)
    assert caught.value.code == code


def test_one_value_alone_is_refused() -> None:
    data = np.full((3, 3, 3), 7, dtype=np.float32)
    with pytest.raises(Refused, match=r"every voxel is 7\.0") as caught:
        check_voxels(data)
    assert caught.value.code == "constant"
    data[0, 0, 0] = 8
    check_voxels(data)
