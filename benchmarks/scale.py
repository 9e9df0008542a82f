"""How much faster are two workers than one? Ingest, encode and sample on a local Dask cluster.

    python -m benchmarks.scale --project DIR [--stages ingest encode sample] [--scans 40000]

DIR is a project whose stages have run; it is copied and left as it is. Each stage runs on one and
on two single-threaded worker processes of a cluster on loopback, after a first run that lets the
workers import what they need, and its published bytes are compared. The last line is one JSON
object: seconds with one and with two workers, items a second, how many times faster, and what an
item takes on the disk. --scans says what as many items would take at these rates.
"""

import argparse
import json
import math
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
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
            host = "127.0.0.1"
            options = {"threads_per_worker": 1, "host": host, "dashboard_address": f"{host}:0"}
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
                        taken = _bytes_below(Layout(root).output(_made_by(name)))
                        found[name]["bytes_per_item"] = taken / items
                    digests[name].add(digest(Layout(root).output(_made_by(name))))
    for name in stages:
        found[name]["times_faster"] = found[name]["seconds_1"] / found[name]["seconds_2"]
        found[name]["same_bytes"] = float(len(digests[name]) == 1)
    return found


def _made_by(stage: str) -> str:
    return next(output for output, made_by in MADE_BY.items() if made_by == stage)


def _bytes_below(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def forecast(found: Mapping[str, Mapping[str, float]], scans: int) -> Iterator[str]:
    """Lines of a table: what so many items take at the measured rates."""
    yield f"\n{scans} items: {'hours on 1':>12} {'workers for a day':>18} {'gigabytes':>10}"
    for name, row in found.items():
        hours = scans / row["items_per_second"] / 3600
        gigabytes = scans * row["bytes_per_item"] / 1e9
        yield f"{name:12} {hours:12.1f} {math.ceil(hours / 24):18} {gigabytes:10.1f}"


def _on(client: Client) -> Map:
    def each(function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
        futures = client.map(function, list(items), pure=False)
        return (future.result() for future in futures)

    return each


def _run(name: str, root: Path, each: Map) -> tuple[float, float]:
    """Seconds of one run from scratch, and how many items it made."""
    params, data = Params.load(root / PARAMS), Layout(root)
    shutil.rmtree(data.output(_made_by(name)), ignore_errors=True)  # ingest would take it over
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
    command.add_argument("--scans", type=int)
    options = command.parse_args(arguments)
    found = measure(options.project.resolve(), options.stages)
    print(f"{'stage':8} {'1 worker':>10} {'2 workers':>10} {'faster':>8} {'items/s on 1':>14}")
    for name, row in found.items():
        print(f"{name:8} {row['seconds_1']:8.1f} s {row['seconds_2']:8.1f} s "
              f"{row['times_faster']:7.2f}× {row['items_per_second']:14.2f}")  # fmt: skip
    for line in forecast(found, options.scans) if options.scans else ():
        print(line)
    print(json.dumps({"benchmark": "scale", **found}, allow_nan=False), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
