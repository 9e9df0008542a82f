"""The plain reference sampler: one full forward pass for every position."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from vqmri.prior.covariates import Rows
from vqmri.prior.gain import GaussianGain
from vqmri.prior.hierarchy import Prior


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

    def gumbel(self, num_embeddings: int) -> Float[np.ndarray, "batch num_embeddings"]:
        """Noise of the next position, float64."""
        uniform = np.stack([stream.random(num_embeddings) for stream in self._streams])
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
    weighted = [(guidance, rows)]
    if guidance != 1.0:
        weighted.append((1.0 - guidance, prior.unknown(len(numbers))))
    values: list[Tensor] = [torch.empty(0)] * len(prior.grids)
    for index in reversed(range(len(prior.grids))):
        noise = Drawing(seed, numbers, index)
        if isinstance(prior.maps[index], GaussianGain):
            values[index] = _draw_gains(prior, index, values, noise, temperature)
        else:
            values[index] = _draw_codes(
                prior, index, values, weighted, noise, temperature, len(numbers), progress
            )
    return values


def _draw_gains(
    prior: Prior, index: int, values: Sequence[Tensor], noise: Drawing, temperature: float
) -> Tensor:
    """Unquantised gains, each from the Gaussian of its code; `temperature` scales the deviation."""
    model = prior.maps[index]
    assert isinstance(model, GaussianGain)
    codes = values[index + 1]
    normal = torch.from_numpy(noise.normal(prior.grids[index])).float().to(prior.device)
    return model.mean[codes] + model.std[codes] * normal * temperature


def _draw_codes(
    prior: Prior,
    index: int,
    values: Sequence[Tensor],
    weighted: Sequence[tuple[float, Rows]],
    noise: Drawing,
    temperature: float,
    batch: int,
    progress: Callable[[int], object],
) -> Tensor:
    grid, number = prior.grids[index], prior.num_embeddings[index]
    drawn = torch.zeros(batch, *grid, dtype=torch.long, device=prior.device)
    conditions = [(weight, prior.condition(index, values, rows)) for weight, rows in weighted]
    for position in np.ndindex(*grid):
        planes = position[0] + 1  # later planes cannot matter: the net is causal
        logits = np.zeros((batch, number))
        for weight, condition in conditions:
            known = None if condition is None else condition[:, :, :planes]
            found = prior.maps[index](drawn[:, :planes], known)
            here = found[(slice(None), slice(None), *position)]
            logits += weight * here.double().cpu().numpy()
        if temperature > 0:
            logits = logits / temperature + noise.gumbel(number)
        drawn[(slice(None), *position)] = torch.from_numpy(logits.argmax(axis=1)).to(prior.device)
        progress(1)
    return drawn
