"""Draw from the prior: what a draw is, and two plain ways to make it.

`one_by_one` is the reference: one full forward pass for each position. `jacobi` is independent of
it, and takes as many passes as the codes need to settle. `cached_sampler` is the fast one. All give
the same codes from the same noise.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from vqmri.convolution import without_tf32
from vqmri.prior.choice import Choice, choose_all
from vqmri.prior.covariates import Rows
from vqmri.prior.gain import GaussianGain
from vqmri.prior.hierarchy import Prior
from vqmri.prior.pixelcnn import PixelCNN


class Drawing:
    """Counter-based noise: what sample `number` of `seed` meets at each position of each map.

    The stream of (seed, number, map) is a Philox generator of its own, so a sample does not depend
    on which others are drawn beside it or on where a run was resumed.
    """

    def __init__(self, seed: int, numbers: Sequence[int], index: int) -> None:
        self._streams = [
            np.random.Generator(np.random.Philox(key=[seed, number], counter=[0, 0, 0, index]))
            for number in numbers
        ]

    def exponential(self, shape: Sequence[int]) -> Float[np.ndarray, "sample ..."]:
        """The next standard exponential noise of each sample, float32 and never 0; see `choose`."""
        return np.stack([_exponential(stream, shape) for stream in self._streams])

    def normal(self, grid: Sequence[int]) -> Float[np.ndarray, "sample *grid"]:
        """Standard normal noise of a whole grid, float64."""
        return np.stack([stream.standard_normal(tuple(grid)) for stream in self._streams])


def _exponential(stream: np.random.Generator, shape: Sequence[int]) -> Float[np.ndarray, "..."]:
    noise = stream.standard_exponential(shape, dtype=np.float32)
    zeros = noise == 0  # once in 2²³ numbers; a code with noise 0 would win whatever its p is
    noise[zeros] = 2.0**-23 * (1 - stream.random(np.count_nonzero(zeros)))
    return noise


@dataclass(frozen=True)
class Task:
    """One map to draw for some samples.

    net: in evaluation mode
    condition: what it is given, (item, feature, *grid) or None. A sample is one item, or two for
        guidance: with the covariates and then without
    given: first codes of each sample in raster order, which are not drawn
    drawing: at its beginning
    progress: is told of positions done
    """

    net: PixelCNN
    condition: Tensor | None
    given: Int[np.ndarray, "sample first"]
    drawing: Drawing
    choice: Choice
    progress: Callable[[int], object]

    @property
    def grid(self) -> tuple[int, ...]:
        """Positions per axis."""
        return tuple(self.net.position.shape[2:])

    @property
    def slab(self) -> tuple[int, ...]:
        """Rows and voxels of a plane; in 2D there is one plane."""
        return self.grid[-2:]

    @property
    def num_planes(self) -> int:
        """Planes of the grid."""
        return math.prod(self.grid[:-2])

    @property
    def ways(self) -> int:
        """Items of each sample."""
        return 1 if self.condition is None else len(self.condition) // len(self.given)

    def start(self) -> Int[np.ndarray, "sample *grid"]:
        """Codes of the whole grid: those given, then zeros."""
        codes = np.zeros((len(self.given), math.prod(self.grid)), np.int64)
        codes[:, : self.given.shape[1]] = self.given
        return codes.reshape(-1, *self.grid)

    def noise(self) -> Float[np.ndarray, "sample row voxel num_embeddings"]:
        """Noise of the next plane, counted from the first."""
        return self.drawing.exponential((*self.slab, self.net.embedding.num_embeddings))


def one_by_one(task: Task) -> Int[Tensor, "sample *grid"]:
    """The reference: for each position the whole net, over all planes that can matter."""
    device = task.net.position.device
    codes = torch.from_numpy(task.start()).to(device)
    first = task.given.shape[1]
    noise = torch.empty(0)
    for number, position in enumerate(np.ndindex(*task.grid)):
        if number % math.prod(task.slab) == 0:
            noise = torch.from_numpy(task.noise()).to(device)
        if number >= first:
            planes = position[0] + 1  # later planes cannot matter: the net is causal
            known = None if task.condition is None else task.condition[:, :, :planes]
            logits = task.net(codes[:, :planes].repeat_interleave(task.ways, 0), known)
            found = logits[:, :, *position].unflatten(0, (-1, task.ways))
            codes[(slice(None), *position)] = choose_all(
                found.movedim(1, 0), noise[(slice(None), *position[-2:])], task.choice
            )
        task.progress(1)
    return codes


def jacobi(task: Task) -> Int[Tensor, "sample *grid"]:
    """Choose all codes anew from all codes until nothing changes (Song et al. 2021, Algorithm 1).

    What is left is its own choice at every position, and as the net is causal there is only one
    such grid: position i is right after i + 1 passes at the latest (arXiv:2002.03629).
    """
    net, device = task.net, task.net.position.device
    planes = [torch.from_numpy(task.noise()).flatten(1, 2) for _ in range(task.num_planes)]
    noise = torch.cat(planes, dim=1).to(device)
    codes = torch.from_numpy(task.start()).to(device)
    settled = first = task.given.shape[1]
    task.progress(first)
    while settled < math.prod(task.grid):
        logits = net(codes.repeat_interleave(task.ways, 0), task.condition)
        found = logits.flatten(2).movedim(1, 2).unflatten(0, (-1, task.ways))
        chosen = choose_all(found.movedim(1, 0), noise, task.choice)
        chosen[:, :first] = codes.flatten(1)[:, :first]
        changed = (chosen != codes.flatten(1)).any(dim=0).nonzero()
        # What stands before a change was chosen from codes that are final, and so is the change.
        done = int(changed[0]) + 1 if len(changed) else math.prod(task.grid)
        task.progress(done - settled)
        settled = done
        codes = chosen.reshape(codes.shape)
    return codes


MapSampler = Callable[[Task], Tensor]
"""Gives the codes of a task, (sample, *grid) on the device of the net."""


@torch.no_grad()
@without_tf32()
def draw(
    prior: Prior,
    *,
    seed: int,
    numbers: Sequence[int],
    choice: Choice,
    rows: Rows | None = None,
    given: Sequence[Tensor] | None = None,
    sampler: MapSampler = one_by_one,
    progress: Callable[[int], object] = lambda positions: None,
) -> list[Tensor]:
    """Draw the samples `numbers`: each map, finest first, (sample, *grid).

    A categorical draw at every position in raster order, from the top map down. `rows` are the
    samples' covariates, None for nothing known. `progress` is told of positions done.

    `given` completes scans that have begun: for each map the first values of each sample in raster
    order, (sample, first). What is drawn after them has exactly the prior's distribution given
    them. It is no way to fill a hole: values behind the hole would not steer it, because a draw is
    conditioned on the past only. Raises ValueError if a map has some while one above it lacks some,
    and for codes that do not exist.

    Float32 products differ in the last bits with the size of the batch: for the same sample from
    the same number, draw it in the same slot of a batch of the same size.
    """
    rows = prior.unknown(len(numbers)) if rows is None else rows.to(prior.device)
    ways = [rows]
    if choice.guidance != 1.0 and prior.covariates:
        ways.append(prior.unknown(len(numbers)))
    firsts = _firsts(prior, len(numbers), given)
    values: list[Tensor] = [torch.empty(0)] * len(prior.grids)
    for index in reversed(range(len(prior.grids))):
        drawing, first = Drawing(seed, numbers, index), firsts[index]
        net = prior.maps[index]
        if isinstance(net, GaussianGain):
            values[index] = _draw_gains(prior, index, values, drawing, choice.temperature, first)
            continue
        assert isinstance(net, PixelCNN)
        conditions = [prior.condition(index, values, way) for way in ways]
        known = [condition for condition in conditions if condition is not None]
        task = Task(
            net=net,
            condition=torch.stack(known, 1).flatten(0, 1) if known else None,
            given=first.cpu().numpy(),
            drawing=drawing,
            choice=choice,
            progress=progress,
        )
        values[index] = sampler(task)
    return values


def _firsts(prior: Prior, count: int, given: Sequence[Tensor] | None) -> list[Tensor]:
    """What is given of each map, with empty ones for nothing."""
    if given is None:
        return [torch.empty(count, 0, dtype=torch.long) for _ in prior.grids]
    for index, grid in enumerate(prior.grids[1:]):
        if given[index].shape[1] and given[index + 1].shape[1] < math.prod(grid):
            raise ValueError(
                f"map {index} has given values while map {index + 1}, on which they depend, is not "
                "given as a whole"
            )
    for index, (net, codes) in enumerate(zip(prior.maps, given, strict=True)):
        most = net.embedding.num_embeddings - 1 if isinstance(net, PixelCNN) else None
        if (
            most is not None
            and len(codes.flatten())
            and not 0 <= codes.min() <= codes.max() <= most
        ):
            raise ValueError(f"what is given of map {index} has codes outside 0 to {most}")
    return list(given)


def _draw_gains(
    prior: Prior,
    index: int,
    values: Sequence[Tensor],
    drawing: Drawing,
    temperature: float,
    given: Tensor,
) -> Tensor:
    """Unquantised gains, each from the Gaussian of its code; `temperature` divides its log."""
    model = prior.maps[index]
    assert isinstance(model, GaussianGain)
    codes = values[index + 1]
    normal = torch.from_numpy(drawing.normal(prior.grids[index])).float().to(prior.device)
    gains = model.mean[codes] + model.std[codes] * normal * temperature**0.5
    gains.flatten(1)[:, : given.shape[1]] = given
    return gains
