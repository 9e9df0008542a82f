"""One model in a comparison: how it takes a step, and what it does on held-out volumes."""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn, optim

from benchmarks.volumes import Side, Stack, closeness
from vqmri.codes import bits_per_position
from vqmri.errors import DivergedError
from vqmri.evaluation.codebook import Usage
from vqmri.quantizers import one_update
from vqmri.terminal import follow
from vqmri.training.batches import batch_indices, item_seed, step_seed

Vary = Callable[[Tensor, Sequence[int]], Tensor]
"""A batch, (batch, 1, *space), and one seed per item to what the model is trained on."""


def unvaried(volumes: Tensor, seeds: Sequence[int]) -> Tensor:
    """The batch itself."""
    return volumes


def nothing() -> None:
    """Do nothing."""


class Reconstructed(NamedTuple):
    """volumes: (batch, 1, *space); codes: (batch, *grid), one per map of the contender."""

    volumes: Tensor
    codes: list[Tensor]


@dataclass(frozen=True)
class Contender:
    """A model that is trained, with everything that is its own.

    recipe: in words, what its reader should know
    model: what learns
    rate: step → learning rate
    loss: what `vary` makes of a batch, to its training loss, a scalar
    reconstruct: what it makes of a batch, in evaluation mode and float32
    map_names, num_embeddings, downsamplings: of its maps of codes, as VQVAE has them
    gradient_norm: longest gradient of a step; infinity when it is not clipped
    vary: varies each batch
    after_step: called after each step of the optimiser
    published: what `reconstruct` works with, where it is only a part of the model or its average;
        None: it is the model
    """

    name: str
    recipe: str
    model: nn.Module
    optimiser: optim.Optimizer
    rate: Callable[[int], float]
    loss: Callable[[Tensor], Tensor]
    reconstruct: Callable[[Tensor], Reconstructed]
    map_names: Sequence[str]
    num_embeddings: Sequence[int]
    downsamplings: Sequence[int]
    gradient_norm: float = math.inf
    vary: Vary = unvaried
    after_step: Callable[[], None] = nothing
    published: nn.Module | None = None

    @property
    def network(self) -> nn.Module:
        """What is evaluated, and whose parameters count."""
        return self.model if self.published is None else self.published

    def bits_per_voxel(self, space: Sequence[int]) -> float:
        """Bits of all maps, at log2 K a code without entropy coding, by the array's voxels."""
        bits = 0.0
        for number, factor in zip(self.num_embeddings, self.downsamplings, strict=True):
            positions = math.prod(n // factor for n in space)
            bits += positions * bits_per_position(number)
        return bits / math.prod(space)


@dataclass(frozen=True)
class Batches:
    """The batch of each step, the same for every contender."""

    side: Side
    batch_size: int
    seed: int
    device: torch.device

    def of_step(self, step: int) -> Tensor:
        count = len(self.side.volumes)
        chosen = batch_indices(step, self.batch_size, count, self.seed)
        return torch.from_numpy(self.side.volumes[chosen]).to(self.device)

    def item_seeds(self, step: int) -> list[int]:
        """Of what is random about each item of the batch, as the training loop has them."""
        return [item_seed(self.seed, step, slot) for slot in range(self.batch_size)]


def take_step(contender: Contender, batches: Batches, step: int) -> float:
    """One optimiser step; its wall time in seconds. DivergedError when the loss is not finite."""
    start = time.perf_counter()
    torch.manual_seed(step_seed(batches.seed, step))
    for group in contender.optimiser.param_groups:
        group["lr"] = contender.rate(step)
    contender.optimiser.zero_grad(set_to_none=True)
    with one_update(contender.model):
        loss = contender.loss(contender.vary(batches.of_step(step), batches.item_seeds(step)))
        if not torch.isfinite(loss):
            raise DivergedError(f"{contender.name}: the loss is {float(loss)} at step {step}.")
        loss.backward()
    if math.isfinite(contender.gradient_norm):
        nn.utils.clip_grad_norm_(contender.model.parameters(), contender.gradient_norm)
    contender.optimiser.step()
    contender.after_step()
    if batches.device.type == "cuda":
        torch.cuda.synchronize(batches.device)
    return time.perf_counter() - start


def train(contender: Contender, batches: Batches, steps: int) -> list[float]:
    """Train in place; the wall time of each step in seconds."""
    contender.model.train()
    numbers = follow(range(steps), contender.name, steps, "step")
    return [take_step(contender, batches, step) for step in numbers]


def measure(contender: Contender, side: Side, batches: Batches) -> dict[str, float]:
    """Held-out `psnr` and `mse` in the field of view, and per map of codes usage and perplexity.

    Codes are counted over all volumes and the whole array. Names are those of `Usage`.
    """
    volumes, use = reconstruct_side(contender, side, batches)
    return closeness(volumes, side) | use


def reconstruct_side(
    contender: Contender, side: Side, batches: Batches
) -> tuple[Stack, dict[str, float]]:
    """All volumes of a side, reconstructed, and usage and perplexity as in `measure`."""
    contender.network.eval()
    usage = Usage(contender.map_names, contender.num_embeddings)
    volumes = []
    with torch.inference_mode():
        for part in torch.from_numpy(side.volumes).split(batches.batch_size):
            reconstructed = contender.reconstruct(part.to(batches.device))
            usage.add(reconstructed.codes)
            volumes.append(reconstructed.volumes.float().cpu())
    return torch.cat(volumes).numpy(), usage.take()
