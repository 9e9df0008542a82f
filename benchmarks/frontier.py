"""How good is a reconstruction at how many bits, beside a classical coder?

    python -m benchmarks.frontier [--volumes DATA/volumes] [--minutes 10] [--seed S]
        [--picture FILE.png] [--only RATE …]

Run it in an ingested project. Each row is the network of the preset hippocampus with other levels
of codes, trained on one thread for so many minutes of steps as that preset asks for, augmentation
included; the learning rate follows the share of the time that has gone, as in
benchmarks/training.py. A rate's name is its levels, `downsampling:codes`, finest first. Where a
level needs a scale that the preset's network lacks, the network goes on as its last scale is.

Beside them stands the 3D DCT coder of benchmarks/dct.py, which trains no network: at the rate of
each row, and as a curve. Both axes are the same for both: bits by the voxels of the whole array,
and held-out PSNR inside the field of view. Codes are counted at log2 K, without the entropy coding
that the DCT coder has; what a prior over the codes would save is left out.

A table is printed, and as the last line one JSON object with everything; --picture draws it.
"""

import argparse
import io
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.by_time import (
    PRESET,
    Clock,
    Row,
    about,
    build_by_time,
    num_parameters,
    parser,
    train,
)
from benchmarks.contender import Batches, Contender
from benchmarks.dct import TransformCoder
from benchmarks.volumes import Split, closeness, read_split
from vqmri.cli import PRESETS
from vqmri.errors import InputError, VqmriError
from vqmri.outputs import replace_file
from vqmri.params import Level, Params, TrainVQVAE
from vqmri.training.device import choose_device

NAMES = ("8:1024", "4:16", "4:64", "4:256", "4:128+8:256", "4:1024", "4:1024+8:1024")
"""By their rate: 0.020, 0.063, 0.094, 0.125, 0.125, 0.156 and 0.176 bits per voxel in 3D."""

CURVE_RATES = tuple(float(rate) for rate in np.geomspace(0.03, 0.4, 12))
TICKS = (0.02, 0.03, 0.05, 0.1, 0.2, 0.4)
PACKAGES = ("monai", "numpy", "scipy", "torch", "vqmri")


def settings_at(name: str, preset: TrainVQVAE) -> TrainVQVAE:
    """The preset's settings with the levels of this name, and as many scales as they need."""
    levels = levels_of(name)
    scales = levels[-1].downsampling.bit_length() - 1
    return preset.model_copy(
        update={
            "levels": levels,
            "channels": _resized(preset.channels, scales),
            "num_res_blocks": _resized(preset.num_res_blocks, scales),
        }
    )


def levels_of(name: str) -> list[Level]:
    """From `downsampling:codes`, joined by + and finest first."""
    pairs = [level.split(":") for level in name.split("+")]
    return [Level(downsampling=int(d), num_embeddings=int(k)) for d, k in pairs]


def _resized(values: Sequence[int], length: int) -> list[int]:
    """Cut, or gone on with its last value."""
    return [*values[:length], *[values[-1]] * (length - len(values))]


def run(
    names: Sequence[str], split: Split, preset: TrainVQVAE, *, minutes: float, seed: int
) -> tuple[list[Row], list[Row]]:
    """Train the named rows, in the order of NAMES; and the curve of the DCT.

    Raises InputError before any training when the volumes cannot be halved so often.
    """
    chosen = {name: settings_at(name, preset) for name in NAMES if name in names}
    for name, settings in chosen.items():
        _check_space(name, settings, split)
    device = choose_device()
    torch.set_num_threads(1)  # the minutes are those of one, as the captions of its picture say
    coder = TransformCoder.of(split)
    rows = []
    for name, settings in chosen.items():
        clock = Clock(60 * minutes)
        contender = build_by_time(
            name, settings, clock, spacing=split.spacing, seed=seed, device=device
        )
        batches = Batches(split.train, settings.batch_size, seed, device)
        [end], figures = train(contender, clock, batches, split.held_out, points=1)
        row = _row(contender, split, figures)
        row |= {"steps": end.steps, "training_seconds": round(clock.gone, 3)}
        rows.append(row | {"dct_psnr": reference(coder, row["bits_per_voxel"])["psnr"]})
        print(_line(rows[-1]), file=sys.stderr, flush=True)
    return rows, [reference(coder, rate) for rate in CURVE_RATES]


def _check_space(name: str, settings: TrainVQVAE, split: Split) -> None:
    factor = settings.levels[-1].downsampling
    if any(n % factor for n in split.space):
        raise InputError(
            f"{name} needs volumes with sides that are multiples of {factor}, these have "
            f"{list(split.space)}. Leave it out with --only, or ingest with another shape."
        )


def _row(contender: Contender, split: Split, figures: Row) -> Row:
    """usage, perplexity: one figure per map of codes, finest level first."""
    per_map = {
        kind: [value for key, value in figures.items() if key.startswith(f"{kind}_")]
        for kind in ("usage", "perplexity")
    }
    return {
        "name": contender.name,
        "recipe": contender.recipe,
        "parameters": num_parameters(contender),
        "bits_per_voxel": contender.bits_per_voxel(split.space),
        **{key: figures[key] for key in ("psnr", "mse", "ssim")},
        **per_map,
    }


def reference(coder: TransformCoder, rate: float) -> Row:
    """The DCT at a rate: `bits_per_voxel`, which may lie a little below it, and `psnr` in dB."""
    step = coder.step_of_rate(rate)
    psnr = closeness(coder.reconstruct(step), coder.side)["psnr"]
    return {"bits_per_voxel": coder.rate(step), "psnr": psnr}


TITLES = ("bits/voxel", "PSNR dB", "DCT dB", "gain dB", "usage", "perplexity", "steps", "weights")


def table(rows: Sequence[Row], curve: Sequence[Row]) -> str:
    """The rows for a reader, how they were made, and the curve of the DCT."""
    lines = [f"{'':16}" + "".join(f"{title:>14}" for title in TITLES)]
    lines += [_line(row) for row in rows]
    lines += ["", "3D DCT, bits per voxel: PSNR in dB"]
    lines += ["  ".join(f"{point['bits_per_voxel']:.3f}: {point['psnr']:.2f}" for point in curve)]
    lines += ["", *(f"{row['name']}: {row['recipe']}" for row in rows)]
    return "\n".join(lines)


def _line(row: Row) -> str:
    values = [row["bits_per_voxel"], row["psnr"], row["dct_psnr"], row["psnr"] - row["dct_psnr"]]
    cells = [f"{value:.4g}" for value in values]
    cells += ["/".join(f"{v:.3g}" for v in row[key]) for key in ("usage", "perplexity")]
    cells += [str(row[key]) for key in ("steps", "parameters")]
    return f"{row['name']:16}" + "".join(f"{cell:>14}" for cell in cells)


def picture(rows: Sequence[Row], curve: Sequence[Row]) -> bytes:
    """PSNR over bits per voxel, as a PNG: the rows as points, each kind of levels one colour."""
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axis = figure.add_subplot()
    coded = [(point["bits_per_voxel"], point["psnr"]) for point in curve]
    coded = sorted(coded + [(row["bits_per_voxel"], row["dct_psnr"]) for row in rows])
    axis.plot(*zip(*coded, strict=True), color="0.45", linewidth=1.4, label="3D DCT, entropy-coded")
    for kind in dict.fromkeys(_kind(row) for row in rows):
        places = [(row["bits_per_voxel"], row["psnr"]) for row in rows if _kind(row) == kind]
        axis.plot(*zip(*places, strict=True), "o", ms=6, label=f"VQ-VAE, codes at {kind}")
    for row in rows:
        _annotate(axis, row)
    axis.set_xscale("log")
    axis.set_xticks(TICKS, [f"{tick:g}" for tick in TICKS])
    axis.set_xticks([], minor=True)
    axis.set_xlabel("rate (bits per voxel)")
    axis.set_ylabel("held-out PSNR in the field of view (dB)")
    axis.spines[["top", "right"]].set_visible(False)
    axis.legend(fontsize=8, frameon=False)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=150, metadata={"Software": None})
    return file.getvalue()


def _annotate(axis: Axes, row: Row) -> None:
    """The sizes of a row's codebooks: to the right of its point, below it if there are two."""
    sizes = [str(level.num_embeddings) for level in levels_of(row["name"])]
    place = (row["bits_per_voxel"], row["psnr"])
    to, aligned = ((6, -9), "left") if len(sizes) == 1 else ((0, -13), "center")
    axis.annotate(
        f"K = {' + '.join(sizes)}", place, to, textcoords="offset points", fontsize=7, ha=aligned
    )


def _kind(row: Row) -> str:
    """The scales of a row's codes."""
    return " and ".join(f"÷{level.downsampling}" for level in levels_of(row["name"]))


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    command = parser("frontier", minutes=10.0)
    command.add_argument("--picture", type=Path, metavar="FILE.png", help="draw it there too")
    command.add_argument("--only", nargs="+", default=NAMES, choices=NAMES, metavar="RATE",
                         help=f"rows to make, among: {'; '.join(NAMES)}")  # fmt: skip
    options = command.parse_args(arguments)
    if options.picture is not None and options.picture.suffix != ".png":
        command.error("--picture must end in .png")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; its exit code."""
    options = _parse(arguments)
    try:
        split = read_split(options.volumes)
        preset = Params.load(PRESETS / f"{PRESET}.yaml").train_vqvae
        rows, curve = run(options.only, split, preset, minutes=options.minutes, seed=options.seed)
    except VqmriError as error:
        print(f"benchmarks.frontier: {error}", file=sys.stderr)
        return error.exit_code
    print(table(rows, curve))
    run_of = about("frontier", options, split, preset, PACKAGES)
    print(json.dumps({**run_of, "rows": rows, "dct": curve}, allow_nan=False), flush=True)
    if options.picture is not None:
        replace_file(options.picture, picture(rows, curve))
    return 0


if __name__ == "__main__":
    sys.exit(main())
