"""How much faster are two workers than one? Ingest, encode and sample on a local Dask cluster.

    python -m benchmarks.scale --project DIR [--stages ingest encode sample]

DIR is a project whose stages have run; it is copied and left as it is. Each stage runs on one and
on two single-threaded worker processes of a cluster on loopback, after a first run that lets the
workers import what they need, and its published bytes are compared. The last line is one JSON
object: seconds with one and with two workers, items a second, and how many times faster.
"""

import argparse
import json
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib import import_module
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from distributed import Client, LocalCluster

from vqmri.layout import MADE_BY, Layout
from vqmri.outputs.manifest import digest
from vqmri.params import PARAMS, Params
from vqmri.protocols import Map
from vqmri.stages import STAGES

SCALING = ("ingest", "encode", "sample")
_ITEMS = {"ingest": "volumes", "encode": "items", "sample": "samples"}


def measure(project: Path, stages: Sequence[str]) -> dict[str, dict[str, float]]:
    """Of each stage the seconds on one and on two workers, its rate on one, and their ratio."""
    with TemporaryDirectory(prefix="vqmri-scale-") as place:
        root = Path(place) / "project"
        shutil.copytree(project, root, symlinks=True)
        found: dict[str, dict[str, float]] = {name: {} for name in stages}
        digests: dict[str, set[str]] = {name: set() for name in stages}
        for workers in (1, 2):
            options = {"threads_per_worker": 1, "host": "127.0.0.1", "dashboard_address": None}
            with (
                LocalCluster(n_workers=workers, **options) as cluster,  # type: ignore[no-untyped-call]
                Client(cluster) as client,  # type: ignore[no-untyped-call]
            ):
                for name in stages:
                    _run(name, root, _on(client))
                    seconds, items = _run(name, root, _on(client))
                    found[name][f"seconds_{workers}"] = seconds
                    if workers == 1:
                        found[name]["items_per_second"] = items / seconds
                    digests[name].add(digest(Layout(root).output(_made_by(name))))
    for name in stages:
        found[name]["times_faster"] = found[name]["seconds_1"] / found[name]["seconds_2"]
        found[name]["same_bytes"] = float(len(digests[name]) == 1)
    return found


def _made_by(stage: str) -> str:
    return next(output for output, made_by in MADE_BY.items() if made_by == stage)


def _on(client: Client) -> Map:
    def each(function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        futures = client.map(function, list(items), pure=False)
        return (future.result() for future in futures)

    return each


def _run(name: str, root: Path, each: Map) -> tuple[float, float]:
    """Seconds of one run from scratch, and how many items it made."""
    params, data = Params.load(root / PARAMS), Layout(root)
    shutil.rmtree(
        data.output(_made_by(name)), ignore_errors=True
    )  # ingest takes over what it knows
    module, function = STAGES[name].split(":")
    stage = getattr(import_module(module), function)
    begin = time.perf_counter()
    metrics = stage(params, data, each=each)
    return time.perf_counter() - begin, metrics[_ITEMS[name]]


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; its exit code."""
    command = argparse.ArgumentParser("python -m benchmarks.scale")
    command.add_argument("--project", type=Path, required=True)
    command.add_argument("--stages", nargs="*", choices=SCALING, default=list(SCALING))
    options = command.parse_args(arguments)
    found = measure(options.project.resolve(), options.stages)
    print(f"{'stage':8} {'1 worker':>10} {'2 workers':>10} {'faster':>8} {'items/s on 1':>14}")
    for name, row in found.items():
        print(f"{name:8} {row['seconds_1']:8.1f} s {row['seconds_2']:8.1f} s "
              f"{row['times_faster']:7.2f}× {row['items_per_second']:14.2f}")  # fmt: skip
    print(json.dumps({"benchmark": "scale", **found}, allow_nan=False), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
