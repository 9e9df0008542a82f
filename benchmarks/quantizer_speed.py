"""What a quantizer costs by itself: forward, backward and the codebook's update in training mode.

    python -m benchmarks.quantizer_speed [--tokens 22400] [--num-embeddings 2048] [--dim 64]
                                         [--rounds 7]

| name    | what it does                                                                          |
|---------|---------------------------------------------------------------------------------------|
| ours    | vqmri's EMAQuantizer                                                                  |
| peer    | MONAI's EMAQuantizer in its VectorQuantizer, which adds the batch's perplexity        |
| product | (tokens × dim) @ (dim × K) in float32 into memory that is there: what no search for   |
|         | the nearest of all codes goes without                                                 |
| fresh   | the same product into new memory, as `tokens @ codebook.T` makes it                   |

All take turns, in float32, on all threads or on CUDA. Latents lie as a convolution leaves them,
(batch, dim, 10, 14, 10), the grid of the preset hippocampus. They are a mixture: each token is a
codebook vector, normal with deviation 1, plus noise of deviation 0.1, and all vectors have equally
many tokens. Both quantizers start at these vectors with averages that agree, past initialisation;
so every code is in use, ours looks for dead codes in each step and finds none to restart.

Ratios are medians within each round, then over rounds. Memory is what three steps add to a fresh
process. The last line is one JSON object.
"""

import argparse
import json
import math
import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from functools import partial
from importlib.metadata import version
from typing import Any

import torch
from monai.networks.layers.vector_quantizer import EMAQuantizer as PeerQuantizer
from monai.networks.layers.vector_quantizer import VectorQuantizer
from torch import Tensor, nn

from benchmarks.timing import added_memory, ratio, seconds_per_step, time_calls
from vqmri.quantizers import EMAQuantizer
from vqmri.training.device import choose_device

GRID = (10, 14, 10)
POSITIONS = math.prod(GRID)
NOISE, DECAY, COMMITMENT_COST = 0.1, 0.99, 0.25
SEED = 0
CALLS_PER_TURN = 3
MEMORY_STEPS = 3
PACKAGES = ("monai", "torch", "vqmri")

Call = Callable[[], object]


@dataclass(frozen=True)
class Size:
    """How much is quantized; tokens is a multiple of POSITIONS."""

    tokens: int
    num_embeddings: int
    dim: int


SMALL = Size(POSITIONS, 16, 8)


@dataclass(frozen=True)
class Mixture:
    """Vectors (num_embeddings, dim), and latents (batch, dim, *GRID) that lie round them."""

    vectors: Tensor
    latents: Tensor

    @classmethod
    def of(cls, size: Size, device: torch.device) -> "Mixture":
        """The same numbers each time."""
        random = torch.Generator().manual_seed(SEED)
        vectors = torch.randn(size.num_embeddings, size.dim, generator=random)
        order = torch.randperm(size.tokens, generator=random)
        tokens = vectors[order % size.num_embeddings]
        tokens = tokens + NOISE * torch.randn(tokens.shape, generator=random)
        grid = tokens.reshape(-1, *GRID, size.dim).movedim(-1, 1).contiguous()
        return cls(vectors.to(device), grid.to(device).requires_grad_())

    @property
    def tokens(self) -> Tensor:
        """(tokens, dim), contiguous."""
        return self.latents.detach().movedim(1, -1).reshape(-1, self.latents.shape[1])

    @property
    def share(self) -> float:
        """Tokens per vector."""
        return self.latents.numel() / self.vectors.numel()


def own_step(mixture: Mixture) -> tuple[nn.Module, Call]:
    """Our quantizer at the mixture's vectors, and a step of it."""
    number, dim = mixture.vectors.shape
    quantizer = EMAQuantizer(
        number, dim, decay=DECAY, commitment_cost=COMMITMENT_COST, initialisation="data"
    ).to(mixture.vectors.device)
    quantizer.ema.initialise(lambda tokens, number: mixture.vectors, mixture.tokens)

    def forward() -> tuple[Tensor, Tensor]:
        found = quantizer(mixture.latents)
        return found.latents, found.loss

    return quantizer, _step(mixture, forward)


def peer_step(mixture: Mixture) -> tuple[nn.Module, Call]:
    """MONAI's at the same vectors, with averages that agree as ours do."""
    number, dim = mixture.vectors.shape
    ema = PeerQuantizer(3, number, dim, commitment_cost=COMMITMENT_COST, decay=DECAY)
    quantizer = VectorQuantizer(ema.to(mixture.vectors.device))
    ema.embedding.weight.data.copy_(mixture.vectors)
    ema.ema_cluster_size.fill_(mixture.share)
    ema.ema_w.copy_(mixture.vectors * mixture.share)

    def forward() -> tuple[Tensor, Tensor]:
        loss, quantized = quantizer(mixture.latents)
        return quantized, loss

    return quantizer, _step(mixture, forward)


def _step(mixture: Mixture, forward: Callable[[], tuple[Tensor, Tensor]]) -> Call:
    """Forward, and backward from a fixed gradient of the quantized latents and from the loss."""
    upstream = torch.ones_like(mixture.latents)

    def step() -> None:
        mixture.latents.grad = None
        torch.autograd.backward(forward(), [upstream, None])

    return step


QUANTIZERS = {"ours": own_step, "peer": peer_step}


def calls(mixture: Mixture) -> dict[str, Call]:
    """All that is timed."""
    tokens, codebook = mixture.tokens, mixture.vectors
    out = tokens.new_empty(len(tokens), len(codebook))
    return {
        **{name: make(mixture)[1] for name, make in QUANTIZERS.items()},
        "product": lambda: torch.mm(tokens, codebook.T, out=out),
        "fresh": lambda: tokens @ codebook.T,
    }


def prepare_steps(name: str, size: Size) -> Call:
    """MEMORY_STEPS steps of a fresh quantizer, after one of a small twin, which loads libraries."""
    device = choose_device()
    QUANTIZERS[name](Mixture.of(SMALL, device))[1]()
    step = QUANTIZERS[name](Mixture.of(size, device))[1]

    def run() -> None:
        for _ in range(MEMORY_STEPS):
            step()

    return run


def used_share(size: Size, device: torch.device) -> float:
    """Share of our codes that the mixture's tokens fall to after one step."""
    mixture = Mixture.of(size, device)
    quantizer, step = own_step(mixture)
    step()
    codes = quantizer(mixture.latents.detach()).codes[0]
    return codes.unique().numel() / size.num_embeddings


def run(size: Size, rounds: int) -> dict[str, Any]:
    """All figures; times in seconds, memory in MB (10⁶ bytes)."""
    device = choose_device()
    times = time_calls(calls(Mixture.of(size, device)), rounds, CALLS_PER_TURN)
    memory = {name: added_memory(partial(prepare_steps, name, size)) for name in QUANTIZERS}
    return {
        "ratio_peer": ratio(times, "peer", "ours"),
        "ratio_product": ratio(times, "ours", "product"),
        "ratio_fresh": ratio(times, "ours", "fresh"),
        "memory_ratio": memory["ours"] / memory["peer"],
        "seconds": {name: seconds_per_step(times, name) for name in times},
        "memory_mb": memory,
        "codes_in_use": used_share(size, device),
    }


def table(found: dict[str, Any]) -> str:
    """The figures for a reader."""
    lines = [f"{'':10}{'ms':>12}{'MB added':>12}"]
    for name, seconds in found["seconds"].items():
        memory = found["memory_mb"].get(name)
        cell = "-" if memory is None else f"{memory:.4g}"
        lines.append(f"{name:10}{1e3 * seconds:>12.4g}{cell:>12}")
    keys = ("ratio_peer", "ratio_product", "ratio_fresh", "memory_ratio", "codes_in_use")
    return "\n".join([*lines, *(f"{key}: {found[key]:.4g}" for key in keys)])


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quantizer_speed")
    parser.add_argument("--tokens", type=int, default=22400, help=f"a multiple of {POSITIONS}")
    parser.add_argument("--num-embeddings", type=int, default=2048, help="codebook size K")
    parser.add_argument("--dim", type=int, default=64, help="length of a codebook vector")
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args(arguments)
    if options.tokens < 1 or options.tokens % POSITIONS:
        parser.error(f"--tokens must be a multiple of {POSITIONS}, the positions of a volume")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; its exit code."""
    options = _parse(arguments)
    size = Size(options.tokens, options.num_embeddings, options.dim)
    found = run(size, options.rounds)
    print(table(found))
    about = {
        "benchmark": "quantizer_speed",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        **asdict(size),
        "rounds": options.rounds,
        "device": choose_device().type,
        "threads": torch.get_num_threads(),
        "versions": {name: version(name) for name in PACKAGES},
    }
    print(json.dumps({**found, **about}, allow_nan=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())
