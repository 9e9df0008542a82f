"""How long steps take, measured in turns: only ratios within the same minutes count.

Beside it, the memory that a call adds.
"""

import ctypes
import gc
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import median

import numpy as np
import torch
from jaxtyping import Float

from benchmarks.contender import Batches, Contender, take_step
from vqmri.terminal import follow

ROUNDS = 5
STEPS_PER_TURN = 3

Times = Mapping[str, Float[np.ndarray, "round step"]]
"""Seconds of each step, by the contender's name."""


def time_in_turns(contenders: Sequence[Contender], batches: Batches, first_step: int) -> Times:
    """Let each contender take STEPS_PER_TURN steps in turn, ROUNDS times.

    Contenders must have been trained before, so that nothing is a first time. They go on from
    `first_step` and all get the same batches.
    """
    times = {contender.name: np.zeros((ROUNDS, STEPS_PER_TURN)) for contender in contenders}
    for contender in contenders:
        contender.model.train()
    for turn in follow(range(ROUNDS), "time in turns", ROUNDS, "round"):
        step = first_step + turn * STEPS_PER_TURN
        for contender in contenders:
            times[contender.name][turn] = [
                take_step(contender, batches, step + i) for i in range(STEPS_PER_TURN)
            ]
    return times


def time_calls(calls: Mapping[str, Callable[[], object]], rounds: int, per_turn: int) -> Times:
    """Let each be called `per_turn` times in turn, after one round that does not count."""
    times = {name: np.zeros((rounds, per_turn)) for name in calls}
    for turn in range(-1, rounds):
        for name, call in calls.items():
            seconds = [_seconds(call) for _ in range(per_turn)]
            if turn >= 0:
                times[name][turn] = seconds
    return times


def _seconds(call: Callable[[], object]) -> float:
    """Of one call, until the accelerator has done its part."""
    start = time.perf_counter()
    call()
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def seconds_per_step(times: Times, name: str) -> float:
    """Median over all rounds."""
    return float(np.median(times[name]))


def ratio(times: Times, name: str, other: str) -> float:
    """Step time of `name` by that of `other`: medians within each round, then over rounds."""
    pairs = zip(times[name], times[other], strict=True)
    return median(float(np.median(own) / np.median(theirs)) for own, theirs in pairs)


def added_memory(prepare: Callable[[], Callable[[], object]]) -> float:
    """How far the peak of a call lies above what is held before it, in MB (10⁶ bytes).

    In a fresh process, where `prepare`, which is pickled, makes the call. On CUDA it is the memory
    of tensors, else resident memory, on Linux with glibc alone. It is read as VmHWM, since
    ru_maxrss of a new process starts at that of its parent.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_added_memory, prepare).result()


def _added_memory(prepare: Callable[[], Callable[[], object]]) -> float:
    call = prepare()
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()
    else:
        ctypes.CDLL(None).malloc_trim(0)  # else the call takes first what `prepare` has freed
        Path("/proc/self/clear_refs").write_text("5")  # the peak is what is held now
    before = _peak()
    call()
    return _peak() - before


def _peak() -> float:
    """Most memory held since it was reset, in MB."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 1e6
    status = Path("/proc/self/status").read_text().split()
    return int(status[status.index("VmHWM:") + 1]) * 1024 / 1e6
