"""Volumes per second of ingest, beside the bare transforms, MONAI's cache and decompression alone.

    python -m benchmarks.ingest [--data FOLDER] [--rounds N]

FOLDER holds `hippocampus/imagesTr/*.nii.gz` and `oasis_t1w_ss/*_SS.nii.gz`. All take turns on
one core, each round anew, on files that the system has in memory:

| name       | what it does                                                                       |
|------------|------------------------------------------------------------------------------------|
| ingest     | the stage: find, hash, check, normalise, look, compress, write, sync, publish      |
| bare       | a loop over MONAI's transforms, results dropped                                    |
| peer       | the first pass of MONAI's PersistentDataset with them, which writes what it caches |
| decompress | Python's gzip alone: the floor                                                     |
| one, two   | ingest on one process and core, and on two, which began before                     |

Ratios are medians over the rounds. Of two data sets the worse ratio stands in the last line.
"""

import argparse
import cProfile
import gzip
import json
import os
import pstats
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any

import torch
import yaml
from monai.data.dataset import PersistentDataset
from monai.transforms import (
    Compose,
    EnsureChannelFirst,
    LoadImage,
    Orientation,
    ResizeWithPadOrCrop,
    ScaleIntensityRangePercentiles,
    Spacing,
)

from vqmri.layout import Layout
from vqmri.params import Params
from vqmri.protocols import Map
from vqmri.stages.ingest import ingest
from vqmri.stages.workers import pool

REPO = Path(__file__).parent.parent
SHARDS = "vqmri.stages.ingest_shard"
PERCENTILES = (0.5, 99.5)


@dataclass(frozen=True)
class DataSet:
    """Scans and the geometry that they are brought to."""

    name: str
    glob: str
    spacing: float
    shape: tuple[int, int, int]

    def paths(self, data: Path) -> list[Path]:
        return sorted((data / self.name).glob(self.glob))

    def params(self, data: Path) -> Params:
        values = yaml.safe_load((REPO / "vqmri/presets/phantom.yaml").read_text())
        values["ingest"] = {
            "raw": str(data / self.name),
            "source": {"kind": "nifti", "images": self.glob},
            "spacing": [self.spacing] * 3,
            "shape": list(self.shape),
            "percentiles": list(PERCENTILES),
            "held_out": 0.2,
        }
        return Params.model_validate(values)

    def transforms(self) -> Compose:
        return Compose(
            [
                LoadImage(reader="NibabelReader", image_only=True),
                EnsureChannelFirst(),
                Orientation(axcodes="RAS", labels=None),
                Spacing(pixdim=(self.spacing,) * 3, mode="bilinear", padding_mode="border"),
                ScaleIntensityRangePercentiles(*PERCENTILES, 0.0, 1.0, clip=True),
                ResizeWithPadOrCrop(spatial_size=self.shape),
            ]
        )


DATA_SETS = (
    DataSet("hippocampus", "imagesTr/*.nii.gz", 1.0, (40, 56, 40)),
    DataSet("oasis_t1w_ss", "*_SS.nii.gz", 1.0, (160, 224, 160)),
)


def bare(paths: list[Path], transforms: Compose) -> None:
    """The transforms and nothing else."""
    for path in paths:
        transforms(str(path))


def peer(paths: list[Path], transforms: Compose, cache: Path) -> None:
    """MONAI's cache on the disk, filled."""
    dataset: Any = PersistentDataset([str(path) for path in paths], transforms, cache)
    for index in range(len(paths)):
        dataset[index]


def decompress(paths: list[Path]) -> None:
    """Every byte, and nothing done with it."""
    for path in paths:
        gzip.decompress(path.read_bytes())


def measure(data_set: DataSet, data: Path, rounds: int) -> dict[str, float]:
    """Figures of one data set; seconds are of the last round."""
    paths, params = data_set.paths(data), data_set.params(data)
    transforms = data_set.transforms()
    bare(paths[:2], transforms)  # nothing is a first time
    times: dict[str, list[float]] = {}

    def turn(name: str, work: Callable[[Path], object], cores: int = 1) -> None:
        with TemporaryDirectory() as folder, _on(cores):
            times.setdefault(name, []).append(_seconds(lambda: work(Path(folder))))

    with _warm(1) as one, _warm(2) as two, TemporaryDirectory() as kept:
        ingest(params, Layout(Path(kept)), each=two)
        for _ in range(rounds):
            turn("ingest", lambda folder: ingest(params, Layout(folder), each=map))
            turn("reingest", lambda _: ingest(params, Layout(Path(kept)), each=map))
            turn("bare", lambda _: bare(paths, transforms))
            turn("peer", lambda folder: peer(paths, transforms, folder))
            turn("decompress", lambda _: decompress(paths))
            turn("one", lambda folder: ingest(params, Layout(folder), each=one))
            turn("two", lambda folder: ingest(params, Layout(folder), each=two), cores=2)
    return {
        "volumes": len(paths),
        **{f"ms_{name}": 1e3 * median(t) / len(paths) for name, t in times.items()},
        "ratio_bare": _ratio(times["ingest"], times["bare"]),
        "ratio_peer": _ratio(times["peer"], times["ingest"]),
        "ratio_floor": _ratio(times["ingest"], times["decompress"]),
        "scaling_2_workers": _ratio(times["one"], times["two"]),
        "reingest_seconds": max(times["reingest"]),
    }


def profile(data_set: DataSet, data: Path) -> dict[str, float]:
    """Milliseconds a volume of each part of ingest, by the profiler, which slows small calls."""
    profiler = cProfile.Profile()
    with TemporaryDirectory() as folder:
        profiler.runcall(ingest, data_set.params(data), Layout(Path(folder)), each=map)
    rows: dict[Any, Any] = pstats.Stats(profiler).stats  # type: ignore[attr-defined]
    count = len(data_set.paths(data))
    own = {
        (Path(file).stem, name): 1e3 * row[3] / count
        for (file, _, name), row in rows.items()
        if "vqmri" in file
    }
    return {
        "whole": own[("ingest", "ingest")],
        "find": own[("ingest", "find")],
        "hash": own[("ingest", "inputs")],
        "read and check": own[("modalities", "read")],
        "normalise": own[("normalise", "normalise")],
        "look": own[("quality", "look")],
        "compress and write": own[("store", "write_shard")],
        "outcomes": own[("outcomes", "write")],
        "assess": own[("quality", "assess")],
        "manifest": own[("manifest", "of")],
        "sync": own[("publish", "sync")],
    }


def _seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def _ratio(first: list[float], second: list[float]) -> float:
    return median(a / b for a, b in zip(first, second, strict=True))


@contextmanager
def _on(number: int) -> Iterator[None]:
    """This process on so many cores."""
    all_cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(all_cores)[:number])
    try:
        yield
    finally:
        os.sched_setaffinity(0, all_cores)


@contextmanager
def _warm(number: int) -> Iterator[Map]:
    """Processes that have begun, each on a core of its own."""
    cores = sorted(os.sched_getaffinity(0))
    with pool(number, SHARDS) as workers:
        list(workers.map(_settle, cores[:number]))

        def each(function: Callable[[Any], Any], items: Any, /) -> Iterator[Any]:
            return iter(workers.map(function, items))

        yield each


def _settle(core: int) -> None:
    """Take a core, and long enough for every process to take one."""
    os.sched_setaffinity(0, {core})
    time.sleep(0.5)


def start_seconds() -> float:
    """What processes cost before they do anything: the import of the library, once."""
    begin = time.perf_counter()
    with pool(2, SHARDS) as workers:
        list(workers.map(abs, range(2)))
    return time.perf_counter() - begin


def main() -> None:
    """Measure both data sets and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--data", type=Path, default=REPO.parent / "shared" / "data")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    print(f"start of two processes, once {start_seconds():10.3f} s")
    data = arguments.data.resolve()
    found = {}
    for data_set in DATA_SETS:
        figures = measure(data_set, data, arguments.rounds)
        found[data_set.name] = figures
        print(f"\n{data_set.name}")
        for name, value in figures.items():
            print(f"  {name:20} {value:10.3f}")
        print("  where the time goes, ms a volume under the profiler")
        for name, value in profile(data_set, data).items():
            print(f"    {name:18} {value:10.3f}")
    worst: dict[str, Callable[..., float]] = {
        "ratio_bare": max,
        "ratio_peer": min,
        "ratio_floor": max,
        "scaling_2_workers": min,
        "reingest_seconds": max,
    }
    last = {name: pick(f[name] for f in found.values()) for name, pick in worst.items()}
    print(json.dumps({name: round(value, 3) for name, value in last.items()}))


if __name__ == "__main__":
    main()
