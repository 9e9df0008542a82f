"""The prior whose sampling is timed, and the forward passes in which its cost is counted."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import scipy.linalg  # noqa: F401  (its BLAS is that of compiled loops; `one_thread` must find it)
import torch
from threadpoolctl import threadpool_limits
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from vqmri.build.train_prior import prior_arguments
from vqmri.params import Params, TrainPrior
from vqmri.prior import Prior
from vqmri.prior.cached_sampler import cached
from vqmri.prior.causal import reach
from vqmri.prior.choice import Choice, choose_all
from vqmri.prior.sampler import MapSampler, Task, draw, one_by_one

LOGIT_DEVIATION = 5.0
"""Of random weights; were it small, the noise would decide every code and a fault go unseen."""

DRAWS = 50
"""Cached draws spread over a long run."""

WARM_UP = (2, 3, 2)
SEED = 0


@dataclass(frozen=True)
class Work:
    """What is sampled: the top map of a preset's prior, by itself, on grids of any size.

    grid: positions per axis in the preset
    check_grid: one small enough for the reference in every run
    """

    settings: TrainPrior
    grid: tuple[int, ...]
    num_embeddings: int
    check_grid: tuple[int, ...] = (4, 5, 4)

    @classmethod
    def of(cls, params: Params) -> "Work":
        """The preset's own grid and number of codes."""
        level = params.train_vqvae.levels[-1]
        grid = tuple(n // level.downsampling for n in params.ingest.shape)
        return cls(params.train_prior, grid, level.num_embeddings)

    def times(self, factor: int) -> tuple[int, ...]:
        """The grid with so many times the positions along each axis."""
        return tuple(factor * n for n in self.grid)


@contextmanager
def one_thread() -> Iterator[None]:
    """PyTorch, OpenMP and every BLAS on one thread."""
    before = torch.get_num_threads()
    with threadpool_limits(limits=1):
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def duration(call: Callable[[], object]) -> float:
    """Seconds of one call."""
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def time_in_turns(calls: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, np.ndarray]:
    """Seconds of each call, (round, 1), after one round that does not count: it compiles."""
    times = {name: np.zeros((rounds, 1)) for name in calls}
    for turn in range(-1, rounds):
        for name, call in calls.items():
            seconds = duration(call)
            if turn >= 0:
                times[name][turn] = seconds
    return times


def beside_cached(
    draw_cached: Callable[[], object], model: nn.Module, calls: int, run: Callable[[], object]
) -> tuple[float, float]:
    """Seconds of a long run that calls the model so often, and their ratio to cached sampling's.

    DRAWS cached draws are spread over it, between the model's calls and not counted, so that both
    are means over the same minutes.
    """
    number, times, every = count(), [], max(1, calls // DRAWS)

    def pause(*_: object) -> None:
        if next(number) % every == 0:
            times.append(duration(draw_cached))

    handle = model.register_forward_pre_hook(pause)
    seconds = duration(run) - sum(times)
    handle.remove()
    return seconds, seconds / float(np.mean(times))


def build_prior(work: Work, grid: Sequence[int], dtype: torch.dtype = torch.float32) -> Prior:
    """The usual random weights, the same ones each time."""
    arguments = prior_arguments(
        work.settings, grids=[grid], num_embeddings=[work.num_embeddings], covariates=[]
    )
    with torch.random.fork_rng():
        torch.manual_seed(SEED)
        return Prior(**arguments).to(dtype).eval().requires_grad_(False)


def scatter(work: Work, prior: Prior) -> Prior:
    """Make the weights larger, so that codes decide about codes far away, and return the prior.

    The last layer is scaled until the logits deviate by LOGIT_DEVIATION.
    """
    for parameter in prior.parameters():
        parameter.data *= 2
    net: Any = prior.maps[0]
    deviation = forward(prior, random_codes(work, prior.grids[0], 1)).std()
    for parameter in net.head[-1].parameters():
        parameter.data *= LOGIT_DEVIATION / deviation
    return prior


def num_parameters(module: nn.Module) -> int:
    """Of all weights."""
    return sum(parameter.numel() for parameter in module.parameters())


def random_codes(work: Work, grid: Sequence[int], batch: int) -> Tensor:
    """Uniform codes."""
    return torch.randint(work.num_embeddings, (batch, *grid))


@torch.no_grad()
def forward(prior: Prior, codes: Tensor) -> Tensor:
    """One forward pass: logits of all positions of the batch."""
    logits: Tensor = prior.maps[0](codes)
    return logits


def sample(prior: Prior, batch: int, sampler: MapSampler = cached) -> Tensor:
    """Codes of `batch` samples, with all that belongs to a draw."""
    numbers = range(batch)
    return draw(prior, seed=SEED, numbers=numbers, choice=Choice(), sampler=sampler)[0]


def whole_grid(task: Task) -> Tensor:
    """The naive way: at each position a forward pass over the whole grid.

    For a task without condition and with nothing given. `one_by_one` is quicker, as it leaves out
    the planes that cannot matter.
    """
    codes = torch.from_numpy(task.start())
    noise = torch.empty(0)
    for number, position in enumerate(np.ndindex(*task.grid)):
        if number % math.prod(task.slab) == 0:
            noise = torch.from_numpy(task.noise())
        logits = task.net(codes)[(slice(None), slice(None), *position)]
        codes[(slice(None), *position)] = choose_all(
            logits.unsqueeze(0), noise[(slice(None), *position[-2:])], task.choice
        )
        task.progress(1)
    return codes


def missed_positions(settings: TrainPrior, grid: Sequence[int]) -> int:
    """Pairs of a position and an earlier one that it does not see, 0 with attention."""
    if settings.num_attention:
        return 0
    missed = 0
    for number, position in enumerate(np.ndindex(*grid)):
        seen = reach(position, grid, settings.num_layers, settings.kernel, settings.radius)
        missed += number - int(seen.ravel()[:number].sum())
    return missed


def multiply_adds(prior: Prior, codes: Tensor) -> int:
    """Of one forward pass: products of matrices and convolutions, zero padding counted."""
    with FlopCounterMode(display=False) as counter:
        forward(prior, codes)
    return int(counter.get_total_flops()) // 2


@dataclass(frozen=True)
class Agreement:
    """Cached against reference, in float64.

    codes: are all equal
    difference: the largest of the cached logits from those of a forward pass over the codes, in
        which each position's logits come from the codes before it alone
    deviation: of the logits
    """

    codes: bool
    difference: float
    deviation: float

    @property
    def identical(self) -> bool:
        """Equal codes, and logits within 1e-9."""
        return self.codes and self.difference < 1e-9


def compare(work: Work, grid: Sequence[int], batch: int) -> Agreement:
    """Draw on the grid by both. Raises RuntimeError if noise may have decided the codes."""
    prior = scatter(work, build_prior(work, grid, torch.float64))
    logits = np.zeros((batch, 1, *grid, work.num_embeddings))
    codes = sample(prior, batch, partial(cached, logits=logits))
    expected = forward(prior, codes)
    difference = (torch.from_numpy(logits[:, 0]).movedim(-1, 1) - expected).abs().max()
    if expected.std() < 3:
        raise RuntimeError(f"the logits deviate by {expected.std():.2f} only, so it proves little")
    equal = torch.equal(codes, sample(prior, batch, one_by_one))
    return Agreement(equal, float(difference), float(expected.std()))


def sampling_memory(work: Work, grid: Sequence[int]) -> float:
    """Peak of a draw of one sample above the idle process, in MB (10⁶ bytes); on Linux alone.

    In a process of its own that has built the net and drawn a tiny grid.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_memory, work, tuple(grid)).result()


def _memory(work: Work, grid: Sequence[int]) -> float:
    with one_thread():
        sample(build_prior(work, WARM_UP[-len(grid) :]), 1)
        prior = build_prior(work, grid)
        Path("/proc/self/clear_refs").write_text("5")  # the peak is what is held now
        idle = _peak()
        sample(prior, 1)
        return _peak() - idle


def _peak() -> float:
    """Most memory that this process has held, in MB."""
    status = Path("/proc/self/status").read_text().split()
    return int(status[status.index("VmHWM:") + 1]) * 1024 / 1e6
