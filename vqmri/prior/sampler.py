"""Draw from the prior, position by position; here with one full forward pass for each.

That is the plain reference. What gives the logits is a *stepper*, and `cached_sampler` has the fast
one; the draw itself is the same code.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from vqmri.prior.covariates import Rows
from vqmri.prior.gain import GaussianGain
from vqmri.prior.hierarchy import Prior
from vqmri.prior.pixelcnn import PixelCNN


class Stepper(ABC):
    """Logits of a map's positions, one after the other in raster order."""

    @abstractmethod
    def __init__(self, net: PixelCNN, condition: Tensor | None, batch: int) -> None:
        """Begin; `net` is in evaluation mode, `condition` is what it is given."""

    @abstractmethod
    def logits(self, position: tuple[int, ...]) -> Float[Tensor, "batch num_embeddings"]:
        """Logits of the next position, given the codes accepted so far."""

    @abstractmethod
    def accept(self, position: tuple[int, ...], codes: Int[Tensor, " batch"]) -> None:
        """The codes at that position."""


class FullForward(Stepper):
    """The reference: the whole net for each position, over all planes that can matter."""

    def __init__(self, net: PixelCNN, condition: Tensor | None, batch: int) -> None:
        self._net, self._condition = net, condition
        grid = net.position.shape[2:]
        self._codes = torch.zeros(batch, *grid, dtype=torch.long, device=net.position.device)

    def logits(self, position: tuple[int, ...]) -> Float[Tensor, "batch num_embeddings"]:
        planes = position[0] + 1  # later planes cannot matter: the net is causal
        known = None if self._condition is None else self._condition[:, :, :planes]
        return self._net(self._codes[:, :planes], known)[of_all(position)]

    def accept(self, position: tuple[int, ...], codes: Int[Tensor, " batch"]) -> None:
        self._codes[of_all(position)[1:]] = codes


def of_all(position: tuple[int, ...]) -> tuple[Any, ...]:
    """Index of a position in (batch, feature, *grid), for all items and features."""
    return (slice(None), slice(None), *position)


class Drawing:
    """Counter-based noise: what sample `number` of `seed` meets at each position of each map.

    Gumbel noise makes a categorical draw an argmax: argmax(logits / T + g) has the distribution
    softmax(logits / T). The stream of (seed, number, map) is a Philox generator of its own, so a
    sample does not depend on which others are drawn beside it or on where a run was resumed.
    """

    def __init__(self, seed: int, numbers: Sequence[int], index: int) -> None:
        self._streams = [
            np.random.Generator(np.random.Philox(key=[seed, number], counter=[0, 0, 0, index]))
            for number in numbers
        ]

    def gumbel(
        self, positions: int, num_embeddings: int
    ) -> Float[np.ndarray, "batch positions num_embeddings"]:
        """Noise of the next positions, float64."""
        shape = (positions, num_embeddings)
        uniform = np.stack([stream.random(shape) for stream in self._streams])
        return -np.log(-np.log(np.maximum(uniform, np.finfo(np.float64).tiny)))

    def normal(self, grid: Sequence[int]) -> Float[np.ndarray, "batch *grid"]:
        """Standard normal noise of a whole grid, float64."""
        return np.stack([stream.standard_normal(tuple(grid)) for stream in self._streams])


@torch.no_grad()
def draw(
    prior: Prior,
    *,
    seed: int,
    numbers: Sequence[int],
    temperature: float,
    rows: Rows | None = None,
    guidance: float = 1.0,
    stepper: type[Stepper] = FullForward,
    progress: Callable[[int], object] = lambda positions: None,
) -> list[Tensor]:
    """Draw the samples `numbers`: each map, finest first, (batch, *grid).

    A categorical draw at every position in raster order, from the top map down. `temperature`
    divides the logits before the noise is added; at 0 there is no draw but the likeliest value at
    each position. `rows` are the samples' covariates, None for nothing known. `guidance` w takes
    logits u + w(c − u) of those with the covariates, c, and without, u (Ho & Salimans 2022): 1 is
    the prior itself. `progress` is told of positions done.

    Float32 products differ in the last bits with the size of the batch: for the same sample from
    the same number, draw it in the same slot of a batch of the same size.
    """
    rows = prior.unknown(len(numbers)) if rows is None else rows.to(prior.device)
    values: list[Tensor] = [torch.empty(0)] * len(prior.grids)
    for index in reversed(range(len(prior.grids))):
        noise = Drawing(seed, numbers, index)
        if isinstance(prior.maps[index], GaussianGain):
            values[index] = _draw_gains(prior, index, values, noise, temperature)
        else:
            steps = _Guided(prior, index, values, rows, guidance, stepper)
            values[index] = _draw_codes(prior, index, steps, noise, temperature, progress)
    return values


class _Guided:
    """Steps of one map, with the covariates and, where guidance asks for it, also without."""

    def __init__(
        self,
        prior: Prior,
        index: int,
        values: Sequence[Tensor],
        rows: Rows,
        guidance: float,
        stepper: type[Stepper],
    ) -> None:
        net = prior.maps[index]
        assert isinstance(net, PixelCNN)
        self.batch = len(rows)
        self._guidance = guidance
        known = [rows] if guidance == 1.0 else [rows, prior.unknown(self.batch)]
        conditions = [prior.condition(index, values, each) for each in known]
        self._steppers = [stepper(net, condition, self.batch) for condition in conditions]

    def logits(self, position: tuple[int, ...]) -> Float[np.ndarray, "batch num_embeddings"]:
        """float64, on the CPU."""
        found = [s.logits(position).double().cpu().numpy() for s in self._steppers]
        if len(found) == 1:
            return found[0]
        return found[1] + self._guidance * (found[0] - found[1])

    def accept(self, position: tuple[int, ...], codes: Int[Tensor, " batch"]) -> None:
        for stepper in self._steppers:
            stepper.accept(position, codes)


def _draw_gains(
    prior: Prior, index: int, values: Sequence[Tensor], noise: Drawing, temperature: float
) -> Tensor:
    """Unquantised gains, each from the Gaussian of its code; `temperature` divides its log."""
    model = prior.maps[index]
    assert isinstance(model, GaussianGain)
    codes = values[index + 1]
    normal = torch.from_numpy(noise.normal(prior.grids[index])).float().to(prior.device)
    return model.mean[codes] + model.std[codes] * normal * temperature**0.5


def _draw_codes(
    prior: Prior,
    index: int,
    steps: _Guided,
    noise: Drawing,
    temperature: float,
    progress: Callable[[int], object],
) -> Tensor:
    grid, number = prior.grids[index], prior.num_embeddings[index]
    drawn = torch.zeros(steps.batch, *grid, dtype=torch.long)
    for row in np.ndindex(*grid[:-1]):
        gumbel = noise.gumbel(grid[-1], number) if temperature > 0 else None
        for last in range(grid[-1]):
            position = (*row, last)
            scores = steps.logits(position)
            if gumbel is not None:
                scores = scores / temperature + gumbel[:, last]
            codes = torch.from_numpy(scores.argmax(axis=1))
            drawn[(slice(None), *position)] = codes
            steps.accept(position, codes.to(prior.device))
        progress(grid[-1])
    return drawn.to(prior.device)
