"""The peer in sampling: MONAI's transformer over codes and the inferer that draws from it.

It keeps nothing between codes: each comes from a call of the transformer on all codes before it.
"""

import math
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from statistics import median

import numpy as np
import torch
from monai.inferers import VQVAETransformerInferer
from monai.networks.nets import DecoderOnlyTransformer
from monai.utils.ordering import Ordering
from torch import Tensor

from benchmarks.passes import duration, num_parameters
from vqmri.errors import InputError

PEERS = {"MONAI transformer": False, "MONAI transformer, flash attention": True}
"""Name to `use_flash_attention`; False is MONAI's default."""

WIDTH, HEADS = 96, 4
SHARES = (0, 1 / 16, 1 / 8, 1 / 4, 7 / 16, 5 / 8, 13 / 16, 1)
"""Lengths that a step is timed at, by the number of codes; steps cost more than in proportion."""

REPEATS = 3
TOLERANCE = 0.15


def build_transformer(
    num_embeddings: int, positions: int, parameters: int, *, flash: bool = False
) -> DecoderOnlyTransformer:
    """As deep as makes it most nearly as large as `parameters`.

    Few and wide layers are kind to it: most of its time goes into attention's square matrices.
    Raises InputError without einops, which MONAI needs here, and RuntimeError if no depth comes
    within TOLERANCE.
    """
    if find_spec("einops") is None:
        raise InputError("MONAI's transformer needs a package more: `pip install einops`.")

    def build(depth: int) -> DecoderOnlyTransformer:
        return DecoderOnlyTransformer(
            num_tokens=num_embeddings + 1,  # the last one stands for the beginning
            max_seq_len=positions,
            attn_layers_dim=WIDTH,
            attn_layers_depth=depth,
            attn_layers_heads=HEADS,
            use_flash_attention=flash,
        ).eval()

    one, two = num_parameters(build(1)), num_parameters(build(2))
    model = build(max(1, 1 + round((parameters - one) / (two - one))))
    if abs(num_parameters(model) / parameters - 1) > TOLERANCE:
        raise RuntimeError(f"{num_parameters(model)} parameters are not near {parameters}")
    return model


class NoDecoder:
    """Stands in for the VQ-VAE, of which the inferer asks the number of codes and the decoding."""

    def __init__(self, num_embeddings: int) -> None:
        self.num_embeddings = num_embeddings

    def decode_samples(self, codes: Tensor) -> Tensor:
        return codes


def sample_codes(
    model: DecoderOnlyTransformer, grid: Sequence[int], batch: int, known: int = 0
) -> Tensor:
    """Codes by MONAI's own loop, (batch, *grid), on a sequence that already holds `known` codes.

    With `known` codes what comes back are the sequence's first ones, of no use but to take time.
    """
    number = model.num_tokens - 1
    first = torch.full((batch, 1), number)
    start = torch.cat([first, torch.randint(number, (batch, known))], dim=1)
    ordering = Ordering("raster_scan", len(grid), (1, *grid))
    codes: Tensor = VQVAETransformerInferer().sample(
        tuple(grid), start, NoDecoder(number), model, ordering, verbose=False
    )
    return codes


def step_times(model: DecoderOnlyTransformer, dims: int, batch: int) -> dict[int, float]:
    """Length of the sequence to seconds of the step that draws the next code."""
    found = {}
    for length in sorted({max(1, round(share * model.max_seq_len)) for share in SHARES}):

        def step(length: int = length) -> Tensor:
            return sample_codes(model, (1,) * dims, batch, known=length - 1)

        step()
        found[length] = median(duration(step) for _ in range(REPEATS))
    return found


def integrate(steps: Mapping[int, float], number: int) -> float:
    """Seconds of the first `number` steps, with straight lines between those measured."""
    lengths = np.arange(1, number + 1)
    return float(np.interp(lengths, list(steps), list(steps.values())).sum())


def estimate_error(
    model: DecoderOnlyTransformer, steps: Mapping[int, float], grid: Sequence[int], batch: int
) -> float:
    """Estimated by measured seconds of sampling the grid at half its size along each axis."""
    half = tuple(max(1, n // 2) for n in grid)
    measured = median(duration(lambda: sample_codes(model, half, batch)) for _ in range(REPEATS))
    return integrate(steps, math.prod(half)) / measured
