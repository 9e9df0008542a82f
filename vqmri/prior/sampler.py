"""The plain reference sampler: one full forward pass for every position."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from vqmri.prior.hierarchy import Prior


class Drawing:
    """Counter-based noise: what sample `number` of `seed` meets at each position of each level.

    Gumbel noise makes a categorical draw an argmax: argmax(logits / T + g) has the distribution
    softmax(logits / T). The stream of (seed, number, level) is a Philox generator of its own, so a
    sample does not depend on which others are drawn beside it or on where a run was resumed.
    """

    def __init__(self, seed: int, numbers: Sequence[int], level: int, num_embeddings: int) -> None:
        self._streams = [
            np.random.Generator(np.random.Philox(key=[seed, number], counter=[0, 0, 0, level]))
            for number in numbers
        ]
        self._num_embeddings = num_embeddings

    def gumbel(self) -> Float[np.ndarray, "batch num_embeddings"]:
        """Noise of the next position, float64."""
        uniform = np.stack([stream.random(self._num_embeddings) for stream in self._streams])
        return -np.log(-np.log(np.maximum(uniform, np.finfo(np.float64).tiny)))


@torch.no_grad()
def draw(
    prior: Prior,
    *,
    seed: int,
    numbers: Sequence[int],
    temperature: float,
    progress: Callable[[int], object] = lambda positions: None,
) -> list[Tensor]:
    """Draw the samples `numbers`, codes of each level, finest first, each (batch, *grid).

    A categorical draw at every position in raster order, from the top level down. `temperature`
    divides the logits before the noise is added. `progress` is told of positions done.

    Float32 products differ in the last bits with the size of the batch: for the same sample from
    the same number, draw it in the same slot of a batch of the same size.
    """
    levels = len(prior.grids)
    codes: list[Tensor] = [torch.empty(0)] * levels
    for level in reversed(range(levels)):
        noise = Drawing(seed, numbers, level, prior.num_embeddings[level])
        codes[level] = _draw_level(prior, level, codes, noise, temperature, len(numbers), progress)
    return codes


def _draw_level(
    prior: Prior,
    level: int,
    codes: Sequence[Tensor],
    noise: Drawing,
    temperature: float,
    batch: int,
    progress: Callable[[int], object],
) -> Tensor:
    grid = prior.grids[level]
    device = prior.device
    drawn = torch.zeros(batch, *grid, dtype=torch.long, device=device)
    condition = prior.condition(level, codes)
    for position in np.ndindex(*grid):
        planes = position[0] + 1  # later planes cannot matter: the net is causal
        known = None if condition is None else condition[:, :, :planes]
        logits = prior.pixelcnns[level](drawn[:, :planes], known)
        here = logits[(slice(None), slice(None), *position)].double().cpu().numpy()
        chosen = np.argmax(here / temperature + noise.gumbel(), axis=1)
        drawn[(slice(None), *position)] = torch.from_numpy(chosen).to(device)
        progress(1)
    return drawn
