"""The peer in sampling: MONAI's transformer over codes and the inferer that draws from it.

It keeps nothing between codes: each comes from a call of the transformer on all codes before it.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from monai.inferers import VQVAETransformerInferer
from monai.networks.nets import DecoderOnlyTransformer
from monai.utils.ordering import Ordering
from torch import Tensor

from benchmarks.passes import beside_cached, num_parameters, time_in_turns
from vqmri.errors import InputError

PEERS = {"MONAI transformer": False, "MONAI transformer, flash attention": True}
"""Name to `use_flash_attention`; False is MONAI's default."""

WIDTH, HEADS = 96, 4
SHARES = (0, 1 / 16, 1 / 8, 1 / 4, 7 / 16, 5 / 8, 13 / 16, 1)
"""Lengths that a step is timed at, by the number of codes; steps cost more than in proportion."""

TOLERANCE = 0.15
LIMIT = 900.0
"""Seconds that the peer may take to be measured in full."""


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


def steps(model: DecoderOnlyTransformer, dims: int, batch: int) -> dict[int, Callable[[], Tensor]]:
    """Length of the sequence to the step that draws the next code, from one to all codes."""
    lengths = sorted({max(1, round(share * model.max_seq_len)) for share in SHARES})
    return {
        length: partial(sample_codes, model, (1,) * dims, batch, known=length - 1)
        for length in lengths
    }


def integrate(seconds: Mapping[int, float], number: int) -> float:
    """Seconds of the first `number` steps, with straight lines between those measured."""
    lengths = np.arange(1, number + 1)
    return float(np.interp(lengths, list(seconds), list(seconds.values())).sum())


def compare_peer(
    model: DecoderOnlyTransformer,
    grid: Sequence[int],
    batch: int,
    draw_cached: Callable[[], object],
    *,
    full: bool,
    rounds: int,
) -> dict[str, Any]:
    """The peer's time for the grid by that of a cached draw, taken in turns.

    Estimated from the time of a step at some lengths. `estimate_error` is estimated by measured
    time on the grid of half the size along each axis.
    """
    number, half = math.prod(grid), tuple(max(1, n // 2) for n in grid)
    of_length = steps(model, len(grid), batch)
    times = time_in_turns(
        {"cached": draw_cached, "half": lambda: sample_codes(model, half, batch)}
        | {str(length): step for length, step in of_length.items()},
        rounds,
    )
    estimates = [
        {length: float(times[str(length)][turn, 0]) for length in of_length}
        for turn in range(rounds)
    ]
    whole = np.array([integrate(seconds, number) for seconds in estimates])
    part = np.array([integrate(seconds, math.prod(half)) for seconds in estimates])
    row: dict[str, Any] = {
        "parameters": num_parameters(model),
        "depth": len(model.blocks),
        "width": model.attn_layers_dim,
        "heads": model.attn_layers_heads,
        "step_s": {length: float(np.median(times[str(length)])) for length in of_length},
        "estimated_s": float(np.median(whole)),
        "estimate_error": float(np.median(part / times["half"][:, 0])),
        "measured": bool(full and np.median(whole) < LIMIT),
        "ratio": float(np.median(whole / times["cached"][:, 0])),
    }
    row["seconds"] = row["estimated_s"]
    if row["measured"]:
        row["seconds"], row["ratio"] = beside_cached(
            draw_cached, model, number, lambda: sample_codes(model, grid, batch)
        )
    return row
