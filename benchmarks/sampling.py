"""How many forward passes does sampling cost?

    python -m benchmarks.sampling [--full] [--rounds N]

The net is the top prior of the preset hippocampus with random weights, on one CPU thread. On the
preset's grid every position sees every earlier one, which is checked; larger grids show how the
cost grows, whatever the net sees of them. Forward passes and cached sampling are timed in turns,
and a ratio is the median of the rounds' ratios. Beside them stand

    naive   a forward pass over the whole grid for each position
    peer    MONAI's VQVAETransformerInferer with a transformer of as many parameters, codes alone

Both are estimated, and with --full measured (a peer that would take longer than LIMIT is not), and
the cached codes are compared with the reference's on the preset's grid in place of a small one. A
table is printed, and as the last line one JSON object with everything.
"""

import argparse
import json
import math
import os
import platform
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from threadpoolctl import threadpool_info
from torch import Tensor

from benchmarks.passes import (
    Work,
    beside_cached,
    build_prior,
    compare,
    forward,
    missed_positions,
    multiply_adds,
    num_parameters,
    one_thread,
    random_codes,
    sample,
    sampling_memory,
    scatter,
    time_in_turns,
    whole_grid,
)
from benchmarks.timing import ratio
from benchmarks.transformer import (
    PEERS,
    build_transformer,
    compare_peer,
)
from vqmri.cli import PRESETS
from vqmri.errors import VqmriError
from vqmri.params import Params
from vqmri.prior import Prior

PRESET = "hippocampus"
PACKAGES = ("monai", "numba", "numpy", "torch", "vqmri")
BATCHES = (1, 4, 16)
BATCH = 4
"""Samples at a time wherever one number is asked for."""

LARGE, LARGEST = 2, 4
"""Times the preset's positions along each axis."""

MATRIX = 2048
"""Rows and columns of the product that gives the rate of multiply-adds."""

Row = dict[str, Any]


def run(work: Work, *, full: bool, rounds: int) -> Row:
    """All figures."""
    missed = missed_positions(work.settings, work.grid)
    if missed:
        raise RuntimeError(f"on {_grid(work.grid)} positions miss {missed} of the earlier ones")
    prior = scatter(work, build_prior(work, work.grid))
    models = {
        name: build_transformer(
            work.num_embeddings, math.prod(work.grid), num_parameters(prior), flash=flash
        )
        for name, flash in PEERS.items()
    }
    rows = [cost(work, work.grid, batch, rounds) for batch in BATCHES]
    rows += [cost(work, work.times(factor), 1, rounds) for factor in (LARGE, LARGEST)]
    return {
        "missed_positions": missed,
        "rows": rows,
        "floor": floor(work, prior, rounds),
        "naive": naive(work, prior, full=full, rounds=rounds),
        "peers": peers(work, prior, models, full=full, rounds=rounds),
        "memory_mb": memory(work),
        "agreement": agreement(work, full=full),
    }


def cost(work: Work, grid: Sequence[int], batch: int, rounds: int) -> Row:
    """A cached draw by a forward pass."""
    _say(f"{_grid(grid)}, {batch} at a time")
    prior, codes = build_prior(work, grid), random_codes(work, grid, batch)
    calls = {"forward": lambda: forward(prior, codes), "cached": lambda: sample(prior, batch)}
    times = time_in_turns(calls, rounds)
    each = times["cached"] / times["forward"]
    cached_s = float(np.median(times["cached"]))
    return {
        "grid": list(grid),
        "samples": batch,
        "parameters": num_parameters(prior),
        "forward_s": float(np.median(times["forward"])),
        "cached_s": cached_s,
        "sample_s": cached_s / batch,
        "position_us": 1e6 * cached_s / batch / math.prod(grid),
        "forwards": ratio(times, "cached", "forward"),
        "forwards_range": [float(each.min()), float(each.max())],
    }


def floor(work: Work, prior: Prior, rounds: int) -> Row:
    """A forward pass by the time in which a product of matrices does as many multiply-adds."""
    _say("multiply-adds of a forward pass")
    codes, matrix = random_codes(work, work.grid, BATCH), torch.randn(MATRIX, MATRIX)
    calls = {"forward": lambda: forward(prior, codes), "matrix": lambda: matrix @ matrix}
    times, number = time_in_turns(calls, rounds), multiply_adds(prior, codes)
    return {
        "multiply_adds": number,
        "forward_s": float(np.median(times["forward"])),
        "matrix_rate": MATRIX**3 / float(np.median(times["matrix"])),
        "forward_floor": ratio(times, "forward", "matrix") * MATRIX**3 / number,
    }


def naive(work: Work, prior: Prior, *, full: bool, rounds: int) -> Row:
    """A forward pass per position; `codes_equal` is the share of cached codes that it gives too."""
    _say("naive")
    codes = random_codes(work, work.grid, BATCH)
    times = time_in_turns(
        {"forward": lambda: forward(prior, codes), "cached": lambda: sample(prior, BATCH)}, rounds
    )
    positions = math.prod(work.grid)
    row: Row = {
        "measured": full,
        "estimated_s": positions * float(np.median(times["forward"])),
        "ratio": positions * ratio(times, "forward", "cached"),
        "codes_equal": None,
    }
    row["seconds"] = row["estimated_s"]
    if full:
        found: list[Tensor] = []
        row["seconds"], row["ratio"] = beside_cached(
            lambda: sample(prior, BATCH),
            prior.maps[0],
            positions,
            lambda: found.append(sample(prior, BATCH, whole_grid)),
        )
        row["codes_equal"] = float((found[0] == sample(prior, BATCH)).double().mean())
    return row


def peers(
    work: Work, prior: Prior, models: Mapping[str, Any], *, full: bool, rounds: int
) -> list[Row]:
    """MONAI's way to as many codes."""
    rows = []
    for name, model in models.items():
        _say(name)
        found = compare_peer(
            model, work.grid, BATCH, lambda: sample(prior, BATCH), full=full, rounds=rounds
        )
        rows.append({"name": name, **found})
    return rows


def memory(work: Work) -> float:
    """MB that a draw of one sample takes on the large grid."""
    _say("memory")
    return sampling_memory(work, work.times(LARGE))


def agreement(work: Work, *, full: bool) -> Row:
    """Whether cached and reference agree."""
    _say("cached against reference")
    grid, batch = (work.grid, BATCH) if full else (work.check_grid, 3)
    found = compare(work, grid, batch)
    return {"grid": list(grid), "samples": batch, "identical": found.identical, **asdict(found)}


def headline(found: Row) -> Row:
    """The figures that are compared from run to run."""
    rows = {(tuple(row["grid"]), row["samples"]): row for row in found["rows"]}
    grids = sorted({grid for grid, _ in rows}, key=math.prod)
    alone = [rows[grid, 1] for grid in grids]
    default, flash = found["peers"]
    return {
        **{f"forwards_b{batch}": rows[grids[0], batch]["forwards"] for batch in BATCHES},
        "forwards_large": rows[grids[1], 1]["forwards"],
        "forward_floor": found["floor"]["forward_floor"],
        "ratio_naive_b4": found["naive"]["ratio"],
        "naive_measured": found["naive"]["measured"],
        "ratio_peer_b4": default["ratio"],
        "peer_measured": default["measured"],
        "ratio_peer_flash_b4": flash["ratio"],
        "identical": found["agreement"]["identical"],
        "memory_mb": found["memory_mb"],
        "growth": [[math.prod(r["grid"]), r["sample_s"], r["position_us"]] for r in alone],
    }


def table(work: Work, found: Row) -> str:
    """The figures for a reader."""
    first, floor, naive, same = found["rows"][0], found["floor"], found["naive"], found["agreement"]
    titles = ["samples", "forward s", "cached s", "s/sample", "µs/position", "forwards", "range"]
    lines = [
        f"prior of {PRESET}: {first['parameters']:,} parameters on {_grid(work.grid)}, "
        f"K = {work.num_embeddings}; earlier positions that some position misses: "
        f"{found['missed_positions']}",
        "",
        f"{'':10}" + "".join(f"{title:>13}" for title in titles),
        *map(_line, found["rows"]),
        "",
        f"On {_grid(work.grid)}, {BATCH} samples:",
        f"forward: {floor['multiply_adds']:.4g} multiply-adds in {floor['forward_s']:.4g} s, "
        f"{floor['forward_floor']:.3g} times as long as at the {floor['matrix_rate']:.4g} per "
        f"second of a {MATRIX}³ product",
        f"naive: {_seconds(naive)}, {naive['ratio']:.4g} times cached" + _equal(naive),
        *map(_peer_line, found["peers"]),
        f"memory: {found['memory_mb']:.4g} MB above the idle process, "
        f"{_grid(work.times(LARGE))}, 1 sample",
        f"cached against reference in float64, {_grid(same['grid'])}, {same['samples']} samples: "
        f"codes {'equal' if same['codes'] else 'DIFFERENT'}, logits within "
        f"{same['difference']:.2g}, of deviation {same['deviation']:.3g}",
    ]
    return "\n".join(lines)


def _line(row: Row) -> str:
    low, high = row["forwards_range"]
    values = (row[k] for k in ("forward_s", "cached_s", "sample_s", "position_us", "forwards"))
    cells = [str(row["samples"]), *(f"{value:.4g}" for value in values), f"{low:.3g}–{high:.3g}"]
    return f"{_grid(row['grid']):10}" + "".join(f"{cell:>13}" for cell in cells)


def _peer_line(row: Row) -> str:
    return (
        f"{row['name']} ({row['parameters']:,} parameters: {row['depth']} layers, {row['width']} "
        f"wide, {row['heads']} heads): {_seconds(row)}, {row['ratio']:.4g} times cached; on half "
        f"the grid along each axis an estimate is {row['estimate_error']:.3g} of what is measured"
    )


def _seconds(row: Row) -> str:
    if row["measured"]:
        return f"{row['seconds']:.4g} s measured in full (estimated {row['estimated_s']:.4g})"
    return f"{row['seconds']:.4g} s estimated"


def _equal(row: Row) -> str:
    share = row["codes_equal"]
    return "" if share is None else f"; {share:.2%} of its float32 codes equal the cached ones"


def _grid(grid: Sequence[int]) -> str:
    return "×".join(map(str, grid))


def _say(what: str) -> None:
    print(f"benchmarks.sampling: {what}", file=sys.stderr, flush=True)


def machine() -> Row:
    """Where it ran; `threads` is the most that any of the thread pools may use."""
    pools = [pool["num_threads"] for pool in threadpool_info()]
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "threads": max([torch.get_num_threads(), *pools]),
    }


def _processor() -> str:
    """The model as Linux names it, else the architecture."""
    info = Path("/proc/cpuinfo")
    for line in info.read_text().splitlines() if info.is_file() else []:
        if line.startswith("model name"):
            return line.split(":", 1)[1].strip()
    return platform.machine()


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.sampling")
    parser.add_argument("--full", action="store_true", help="measure what else is estimated")
    parser.add_argument("--rounds", type=int, default=15, help="turns of each pair of timings")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None, work: Work | None = None) -> int:
    """The command; its exit code. `work` in place of the preset's is for tests."""
    options = _parse(arguments)
    try:
        work = work or Work.of(Params.load(PRESETS / f"{PRESET}.yaml"))
        with one_thread():
            found = run(work, full=options.full, rounds=options.rounds)
            place = machine()  # now that every library is loaded
    except VqmriError as error:
        print(f"benchmarks.sampling: {error}", file=sys.stderr)
        return error.exit_code
    print(", ".join(f"{key} {value}" for key, value in place.items()))
    print(table(work, found))
    about = {
        "benchmark": "sampling",
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "preset": PRESET,
        "full": options.full,
        "rounds": options.rounds,
        **place,
        "versions": {name: version(name) for name in PACKAGES},
    }
    print(json.dumps({**headline(found), **about, **found}, allow_nan=False))
    return 0


if __name__ == "__main__":
    sys.exit(main())
