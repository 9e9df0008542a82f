from functools import partial

import numpy as np
import pytest

from benchmarks.timing import added_memory, ratio, seconds_per_step, time_calls

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


def test_calls_take_turns_after_a_round_that_does_not_count() -> None:
    called: list[str] = []
    calls = {"a": lambda: called.append("a"), "b": lambda: called.append("b")}
    times = time_calls(calls, rounds=3, per_turn=2)
    assert "".join(called) == "aabb" * 4
    assert all(found.shape == (3, 2) and (found >= 0).all() for found in times.values())


def test_added_memory_is_the_peak_of_the_call_alone() -> None:
    """Neither what this process holds, nor what is held before the call, nor what is left of it."""
    held = np.ones(300_000_000, dtype=np.uint8)
    assert 39 < added_memory(partial(_prepare, 40_000_000)) < 60
    assert held[-1] == 1


def _prepare(size: int) -> partial[None]:
    kept = np.ones(2 * size, dtype=np.uint8)
    return partial(_fill_and_drop, size, kept)


def _fill_and_drop(size: int, kept: np.ndarray) -> None:
    np.ones(size, dtype=np.uint8)
