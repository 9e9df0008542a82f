import numpy as np
import pytest

from vqmri.scans.bias import correct_bias
from vqmri.scans.check import Refused
from vqmri.scans.volume import Volume


def head(bias: float) -> tuple[Volume, np.ndarray, np.ndarray]:
    """A head of two tissues under a field that grows from left to right; its mask, the field."""
    shape = (48, 56, 48)
    x, y, z = 2 * np.indices(shape) / np.reshape(np.array(shape) - 1, (3, 1, 1, 1)) - 1
    inside = x**2 + y**2 + z**2 < 0.8
    tissue = np.where(x**2 + (y + 0.2) ** 2 + z**2 < 0.3, 900.0, 500.0) * inside
    field = np.exp(bias * x)
    noise = np.random.default_rng(0).normal(0, 5, shape)
    data = np.clip(tissue * field + noise, 0, None).astype(np.float32)
    return Volume(data[None], np.diag([3.0, 3, 3, 1])), inside, field


def unevenness(data: np.ndarray, inside: np.ndarray) -> float:
    """Of the outer tissue: the slope of its logarithm from left to right."""
    x = 2 * np.indices(data.shape)[0] / (len(data) - 1) - 1
    there = inside & (data > 50)
    logs = np.log(data[there]) - np.log(data[there]).mean()
    return float(np.polyfit(x[there], logs, 1)[0])


@pytest.mark.parametrize("masked", [False, True])
def test_a_field_is_taken_out(masked: bool) -> None:
    scan, inside, _ = head(0.4)
    if masked:
        scan = Volume(scan.data, scan.affine, mask=inside.astype(np.float32))
    before = unevenness(scan.data[0], inside)
    corrected, steps = correct_bias(scan)
    after = unevenness(corrected.data[0], inside)
    assert before > 0.3
    assert abs(after) < 0.25 * before
    assert corrected.data.dtype == np.float32
    low, high = steps[0]["field"][0]
    assert high / low > 1.5


def test_a_scan_without_a_field_stays_as_it_is() -> None:
    scan, inside, _ = head(0.0)
    corrected, _ = correct_bias(scan)
    ratio = corrected.data[0][inside] / np.maximum(scan.data[0][inside], 1)
    assert ratio.std() / ratio.mean() < 0.05


def test_it_is_deterministic() -> None:
    scan, _, _ = head(0.3)
    first, second = (correct_bias(scan)[0].data for _ in range(2))
    assert np.array_equal(first, second)


def test_nothing_above_0_is_refused() -> None:
    data = -np.random.default_rng(0).random((1, 40, 40, 40)).astype(np.float32)
    with pytest.raises(Refused, match="not-positive"):
        correct_bias(Volume(data, np.eye(4)))
