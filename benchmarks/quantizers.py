"""Which quantizer reconstructs best at equal steps, and at what rate?

    python -m benchmarks.quantizers [--volumes DATA/volumes] [--steps N] [--seed S] [--only NAME …]

Run it in an ingested project. Each row is trained on the same volumes with the same batches for the
same number of steps: each quantizer in the network of the preset hippocampus, MONAI's VQVAE as a
peer; beside them stands a 3D DCT coder, without training, at the rates of the quantizers. Figures
are of the held-out volumes, in float32; step times are taken afterwards, in turns. A table is
printed, and as the last line one JSON object with everything.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from benchmarks.contender import Batches, Contender, measure, train
from benchmarks.dct import TransformCoder
from benchmarks.own import QUANTIZERS, build_own
from benchmarks.peers import PEERS, build_peer
from benchmarks.timing import (
    ROUNDS,
    STEPS_PER_TURN,
    Times,
    ratio,
    seconds_per_step,
    time_in_turns,
)
from benchmarks.volumes import Split, closeness, read_split
from vqmri.cli import PRESETS
from vqmri.errors import VqmriError
from vqmri.outputs.manifest import digest
from vqmri.params import Level, Params, TrainVQVAE
from vqmri.training.device import choose_device

PRESET = "hippocampus"
NUM_EMBEDDINGS = 256
"""Of the peers, as most quantizers' rows have it; the preset's own may differ."""

DCT = "3D DCT"
NAMES = [*QUANTIZERS, *PEERS, DCT]
PACKAGES = ("monai", "numpy", "scipy", "torch", "vqmri")

Row = dict[str, Any]


def settings_of_preset() -> TrainVQVAE:
    """The preset's, with NUM_EMBEDDINGS codes."""
    preset = Params.load(PRESETS / f"{PRESET}.yaml").train_vqvae
    [level] = preset.levels
    levels = [Level(downsampling=level.downsampling, num_embeddings=NUM_EMBEDDINGS)]
    return preset.model_copy(update={"levels": levels})


def run(
    names: Sequence[str], split: Split, settings: TrainVQVAE, *, steps: int, seed: int
) -> list[Row]:
    """Train, measure and time the named rows; in the order of NAMES, the reference last."""
    device = choose_device()
    batches = Batches(split.train, settings.batch_size, seed, device)
    rows, contenders = [], []
    for name in [name for name in (*QUANTIZERS, *PEERS) if name in names]:
        contender = build(name, split, settings, steps=steps, seed=seed, device=device)
        training = train(contender, batches, steps)
        figures = measure(contender, split.held_out, batches)
        rows.append(_trained_row(contender, split, figures) | {"steps": steps})
        rows[-1]["training_seconds"] = round(sum(training), 3)
        print(_line(rows[-1], []), file=sys.stderr, flush=True)
        contenders.append(contender)
    times = time_in_turns(contenders, batches, steps)
    for row in rows:
        row |= _time_columns(times, row["name"])
    if DCT in names:
        rows += reference_rows(split, rates(split, settings, steps))
    return rows


def build(
    name: str,
    split: Split,
    settings: TrainVQVAE,
    *,
    steps: int,
    seed: int = 0,
    device: torch.device | None = None,
) -> Contender:
    """A contender by its name. Equal seeds give equal first weights to equal networks."""
    torch.manual_seed(seed)
    device = device or torch.device("cpu")
    if name in PEERS:
        return build_peer(name, settings, spatial_dims=len(split.space), device=device)
    return build_own(name, settings, spacing=split.spacing, steps=steps, device=device)


def rates(split: Split, settings: TrainVQVAE, steps: int) -> list[float]:
    """Bits per voxel of the quantizers, each once, ascending."""
    built = (build(name, split, settings, steps=steps) for name in QUANTIZERS)
    return sorted({contender.bits_per_voxel(split.space) for contender in built})


def reference_rows(split: Split, wanted: Sequence[float]) -> list[Row]:
    """One row of the transform coder per rate."""
    coder = TransformCoder.of(split)
    rows = []
    for rate in wanted:
        step = coder.step_of_rate(rate)
        rows.append(
            _empty_row(f"{DCT} at {rate:.3f}")
            | {"recipe": f"quantisation step {step:.4g}, see benchmarks/dct.py"}
            | {"bits_per_voxel": coder.rate(step)}
            | closeness(coder.reconstruct(step), split.held_out)
        )
    return rows


def _empty_row(name: str) -> Row:
    """All keys of a row; what does not apply to it stays None."""
    keys = (
        "recipe", "parameters", "bits_per_voxel", "psnr", "mse", "usage", "perplexity",
        "usage_gain", "perplexity_gain", "steps", "training_seconds", "seconds_per_step",
    )  # fmt: skip
    return {"name": name, **dict.fromkeys(keys), "ratio_to": {}}


def _trained_row(contender: Contender, split: Split, figures: dict[str, float]) -> Row:
    found = {name.replace("_level_0", ""): value for name, value in figures.items()}
    return _empty_row(contender.name) | {
        "recipe": contender.recipe,
        "parameters": sum(p.numel() for p in contender.network.parameters()),
        "bits_per_voxel": contender.bits_per_voxel(split.space),
        **found,
    }


def _time_columns(times: Times, name: str) -> Row:
    peers = [peer for peer in PEERS if peer in times]
    return {
        "seconds_per_step": seconds_per_step(times, name),
        "ratio_to": {peer: ratio(times, name, peer) for peer in peers},
    }


def table(rows: Sequence[Row]) -> str:
    """The rows for a reader, and below them how each was made."""
    peers = [peer for peer in PEERS if any(peer in row["ratio_to"] for row in rows)]
    titles = ["bits/voxel", "PSNR dB", "MSE", "usage", "perplexity", "s/step"]
    titles += [f"to peer {1 + i}" for i in range(len(peers))]
    lines = [f"{'':34}" + "".join(f"{title:>12}" for title in titles)]
    lines += [_line(row, peers) for row in rows]
    lines += ["", *(f"peer {1 + i}: {peer}" for i, peer in enumerate(peers))]
    lines += [f"{row['name']}: {row['recipe']}" for row in rows]
    return "\n".join(lines)


def _line(row: Row, peers: Sequence[str]) -> str:
    values = [row[key] for key in ("bits_per_voxel", "psnr", "mse", "usage", "perplexity")]
    values += [row["seconds_per_step"], *(row["ratio_to"].get(peer) for peer in peers)]
    cells = ["-" if value is None else f"{value:.4g}" for value in values]
    return f"{row['name']:34}" + "".join(f"{cell:>12}" for cell in cells)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.quantizers")
    parser.add_argument("--volumes", type=Path, default=Path("data/volumes"))
    parser.add_argument("--steps", type=int, default=400, help="optimiser steps of each row")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", default=NAMES, choices=NAMES, metavar="NAME",
                        help=f"rows to make, among: {'; '.join(NAMES)}")  # fmt: skip
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; its exit code."""
    options = _parse(arguments)
    try:
        split = read_split(options.volumes)
        settings = settings_of_preset()
        rows = run(options.only, split, settings, steps=options.steps, seed=options.seed)
    except VqmriError as error:
        print(f"benchmarks.quantizers: {error}", file=sys.stderr)
        return error.exit_code
    print(table(rows))
    about = {
        "benchmark": "quantizers",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "preset": PRESET,
        "steps": options.steps,
        "seed": options.seed,
        "batch_size": settings.batch_size,
        "volumes": digest(options.volumes),
        "train_volumes": len(split.train.volumes),
        "held_out_volumes": len(split.held_out.volumes),
        "space": split.space,
        "device": choose_device().type,
        "threads": torch.get_num_threads(),
        "timing": {"rounds": ROUNDS, "steps_per_turn": STEPS_PER_TURN},
        "versions": {name: version(name) for name in PACKAGES},
    }
    print(json.dumps({**about, "rows": rows}, allow_nan=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())
