"""Which VQ-VAE reconstructs best after equal wall time, and what does a training step cost?

    python -m benchmarks.training [--volumes DATA/volumes] [--minutes 5] [--seed S]

Run it in an ingested project. Four rows train in one run, one after the other on all threads, on
the same batches, each for so many minutes of training steps; evaluation is left out of them:

| row              | network                                    | trained                  |
|------------------|--------------------------------------------|--------------------------|
| MONAI VQVAE      | MONAI's, as benchmarks/peers.py has it     | in float32               |
| … channels-last  | the same                                   | in bfloat16, laid out so |
| vqmri equal work | ours, as many parameters and multiply-adds | as a short run wants it  |
| vqmri recipe     | ours, as many parameters, coarse blocks    | the same                 |

There are two rows of ours because they answer two questions. At equal work (parameters and
multiply-adds of a step within 10 % of MONAI's), what is left is how the work is done: normalisation
and activation, the loss, optimiser and schedule, the start and the decay of the codebook, and the
precision. The recipe has as many parameters but puts its residual blocks at the coarse scale, where
each costs an eighth; it takes more steps in the same time, and that is a choice of network, not a
better implementation. Both are trained as the preset says, without its augmentation.
Codebook size, dimension and downsampling are the same everywhere.

What to bear in mind:
- Ours trains in bfloat16 autocast where the processor computes in it, MONAI's default in float32;
  the fast row is MONAI's with bfloat16 and channels-last memory. Ours is not channels-last.
- MONAI's rows minimise L1 at a constant rate, as its tutorial does; ours the squared error, which
  PSNR measures, with warm-up and cosine. Here the share of the wall time that has gone stands for
  the share of the preset's steps, so that the rate ends at zero whatever the machine. A cosine's
  curve is low until late, which makes `time_to_peer` late; it is taken as it is.
- Nobody tuned MONAI's rows for this data set; the preset and the recipe were chosen on it.

PSNR (12 times, as a curve), SSIM, usage and perplexity are of the held-out volumes, in float32.
Step times are taken afterwards, in turns; multiply-adds are counted in one step, forward and
backward, zero padding included; memory is what steps add, each row in a process of its own. A table
is printed, and as the last line one JSON object with everything.
"""

import json
import sys
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.by_time import (
    PRESET,
    Clock,
    Point,
    Row,
    about,
    build_by_time,
    num_parameters,
    parser,
    train,
)
from benchmarks.contender import Batches, Contender, take_step
from benchmarks.peers import PEER, PEER_BFLOAT16, PEER_FAST, WIDTH, build_peer
from benchmarks.timing import Times, added_memory, ratio, seconds_per_step, time_in_turns
from benchmarks.volumes import Side, Split, read_split
from vqmri.cli import PRESETS
from vqmri.errors import VqmriError
from vqmri.params import Params, TrainVQVAE
from vqmri.training.device import choose_device

EQUAL_WORK, RECIPE = "vqmri equal work", "vqmri recipe"
NUM_RES_BLOCKS = {EQUAL_WORK: [4, 6], RECIPE: [0, 9]}
"""Of our rows, at ÷2 and ÷4."""

NAMES = (PEER, PEER_FAST, EQUAL_WORK, RECIPE)
PACKAGES = ("monai", "numpy", "torch", "vqmri")

MEMORY_STEPS = 3
"""Over which the peak is taken: from the second on the optimiser's averages are held too."""

SMALL = 16
"""Voxels along each axis of a volume on which a first step costs nothing."""


def build(
    name: str,
    settings: TrainVQVAE,
    clock: Clock,
    *,
    spacing: Sequence[float],
    seed: int,
    device: torch.device,
) -> Contender:
    """A contender by its name, whose learning rate follows the clock if it is ours."""
    if name in NUM_RES_BLOCKS:
        own = settings_of(name, settings)
        return build_by_time(name, own, clock, spacing=spacing, seed=seed, device=device)
    torch.manual_seed(seed)
    fast = name == PEER_FAST
    peer = PEER_BFLOAT16 if fast else name
    return build_peer(peer, settings, spatial_dims=len(spacing), device=device, channels_last=fast)


def settings_of(name: str, preset: TrainVQVAE) -> TrainVQVAE:
    """The preset's but for the network, without what a short training has no use for."""
    blocks = NUM_RES_BLOCKS[name]
    return preset.model_copy(
        update={
            "channels": [WIDTH] * len(blocks),
            "num_res_blocks": blocks,
            "augment": None,
            "average_decay": None,
        }
    )


def time_to_peer(curve: Sequence[Point], target: float) -> float | None:
    """Share of the wall time after which the curve first has `target` dB; None if it never does.

    Linear between points. A first point that has it already gives its own share, which is too much.
    """
    if curve and curve[0].psnr >= target:
        return curve[0].share
    for before, after in pairwise(curve):
        if after.psnr >= target:
            part = (target - before.psnr) / (after.psnr - before.psnr)
            return before.share + part * (after.share - before.share)
    return None


def multiply_adds(contender: Contender, volumes: Tensor) -> int:
    """Of one training step on a batch: products of matrices and convolutions, both directions.

    It changes the moving averages, so it comes last.
    """
    contender.model.train()
    with FlopCounterMode(display=False) as counter:
        contender.loss(volumes).backward()
    contender.model.zero_grad(set_to_none=True)
    return int(counter.get_total_flops()) // 2


def prepare_steps(
    name: str, settings: TrainVQVAE, space: Sequence[int], spacing: Sequence[float]
) -> Callable[[], None]:
    """MEMORY_STEPS steps of a fresh contender, after those of a twin, which load libraries."""
    _steps(name, settings, [SMALL] * len(space), spacing)()
    return _steps(name, settings, space, spacing)


def _steps(
    name: str, settings: TrainVQVAE, space: Sequence[int], spacing: Sequence[float]
) -> Callable[[], None]:
    device = choose_device()
    shape = (settings.batch_size, 1, *space)
    side = Side(np.random.default_rng(0).random(shape, dtype=np.float32), [])
    batches = Batches(side, settings.batch_size, 0, device)
    clock = Clock(1.0)
    contender = build(name, settings, clock, spacing=spacing, seed=0, device=device)
    contender.model.train()

    def run() -> None:
        for step in range(MEMORY_STEPS):
            take_step(contender, batches, step)

    return run


def run(split: Split, settings: TrainVQVAE, *, minutes: float, seed: int) -> list[Row]:
    """Train, measure and time all rows, in the order of NAMES."""
    device = choose_device()
    batches = Batches(split.train, settings.batch_size, seed, device)
    rows: list[Row] = []
    contenders = []
    for name in NAMES:
        clock = Clock(60 * minutes)
        contender = build(name, settings, clock, spacing=split.spacing, seed=seed, device=device)
        curve, figures = train(contender, clock, batches, split.held_out)
        rows.append(_trained_row(contender, curve, figures, clock.gone))
        print(f"{name}: {figures['psnr']:.4g} dB", file=sys.stderr, flush=True)
        contenders.append(contender)
    first_step = max(row["steps"] for row in rows)
    times = time_in_turns(contenders, batches, first_step)
    for row, contender in zip(rows, contenders, strict=True):
        row |= _time_columns(times, contender.name)
        row["multiply_adds"] = multiply_adds(contender, batches.of_step(first_step))
        prepare = partial(prepare_steps, contender.name, settings, split.space, split.spacing)
        row["memory_mb"] = added_memory(prepare)
    return rows


def _trained_row(contender: Contender, curve: Sequence[Point], figures: Row, seconds: float) -> Row:
    return {
        "name": contender.name,
        "recipe": contender.recipe,
        "parameters": num_parameters(contender),
        "steps": curve[-1].steps,
        "training_seconds": round(seconds, 3),
        **{key.replace("_level_0", ""): value for key, value in figures.items()},
        "curve": [point._asdict() for point in curve],
    }


def _time_columns(times: Times, name: str) -> Row:
    others = {other: ratio(times, name, other) for other in times}
    return {"seconds_per_step": seconds_per_step(times, name), "ratio_to": others}


def headline(rows: Sequence[Row]) -> Row:
    """The figures that are compared from run to run."""
    peer, fast, equal, recipe = ({row["name"]: row for row in rows}[name] for name in NAMES)
    curve = [Point(**point) for point in recipe["curve"]]
    return {
        "step_ratio": peer["ratio_to"][EQUAL_WORK],
        "step_ratio_fast": fast["ratio_to"][EQUAL_WORK],
        "flops_ratio": equal["multiply_adds"] / peer["multiply_adds"],
        "parameters_ratio": equal["parameters"] / peer["parameters"],
        "memory_ratio": equal["memory_mb"] / peer["memory_mb"],
        "equal_work_psnr_gain_db": equal["psnr"] - peer["psnr"],
        "recipe_flops_ratio": recipe["multiply_adds"] / peer["multiply_adds"],
        "recipe_parameters_ratio": recipe["parameters"] / peer["parameters"],
        "psnr_gain_db": recipe["psnr"] - peer["psnr"],
        "psnr_gain_fast_db": recipe["psnr"] - fast["psnr"],
        "time_to_peer": time_to_peer(curve, fast["psnr"]),
    }


COLUMNS = {
    "parameters": "parameters",
    "multiply_adds": "mult-adds",
    "steps": "steps",
    "psnr": "PSNR dB",
    "ssim": "SSIM",
    "usage": "usage",
    "perplexity": "perplexity",
    "seconds_per_step": "s/step",
    "memory_mb": "MB added",
}
"""Key of a row to its title."""


def table(rows: Sequence[Row]) -> str:
    """The rows for a reader, how each was made, the curves, and the figures of `headline`."""
    lines = [f"{'':38}" + "".join(f"{title:>12}" for title in COLUMNS.values())]
    for row in rows:
        cells = ["-" if row[key] is None else f"{row[key]:.4g}" for key in COLUMNS]
        lines.append(f"{row['name']:38}" + "".join(f"{cell:>12}" for cell in cells))
    lines += ["", "PSNR in dB at shares of the wall time:"]
    for row in rows:
        points = [f"{point['share']:.2f}: {point['psnr']:.2f}" for point in row["curve"]]
        lines.append(f"{row['name']:38}{'  '.join(points)}")
    lines += ["", *(f"{row['name']}: {row['recipe']}" for row in rows), ""]
    lines += [
        f"{key}: {'never' if value is None else f'{value:.4g}'}"
        for key, value in headline(rows).items()
    ]
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; its exit code."""
    options = parser("training", minutes=5.0).parse_args(arguments)
    try:
        split = read_split(options.volumes)
        settings = Params.load(PRESETS / f"{PRESET}.yaml").train_vqvae
        rows = run(split, settings, minutes=options.minutes, seed=options.seed)
    except VqmriError as error:
        print(f"benchmarks.training: {error}", file=sys.stderr)
        return error.exit_code
    print(table(rows))
    run_of = about("training", options, split, settings, PACKAGES)
    run_of |= {"num_res_blocks": NUM_RES_BLOCKS}
    print(json.dumps({**headline(rows), **run_of, "rows": rows}, allow_nan=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())
