import numpy as np
import pytest

from benchmarks.timing import ratio, seconds_per_step

TIMES = {
    "fast": np.array([[1.0, 1.0, 9.0], [2.0, 2.0, 2.0], [1.0, 1.5, 1.0]]),
    "slow": np.array([[4.0, 4.0, 4.0], [8.0, 80.0, 8.0], [4.0, 4.0, 4.0]]),
}


def test_a_busy_minute_does_not_change_the_ratio() -> None:
    assert ratio(TIMES, "slow", "fast") == 4.0
    assert ratio(TIMES, "fast", "slow") == 0.25
    assert ratio(TIMES, "slow", "slow") == 1.0


def test_the_step_time_is_the_median_of_all() -> None:
    assert seconds_per_step(TIMES, "fast") == pytest.approx(1.5)
