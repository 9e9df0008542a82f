"""Volumes per second of ingest, beside the bare transforms, MONAI's cache and decompression alone.

    python -m benchmarks.ingest [--data FOLDER] [--rounds N]

FOLDER holds `hippocampus/imagesTr/*.nii.gz` and `oasis_t1w_ss/*_SS.nii.gz`. All take turns in one
process with one thread, each round anew, on files that the system has in memory:

| name       | what it does                                                                       |
|------------|------------------------------------------------------------------------------------|
| ingest     | the stage: find, hash, check, normalise, look, compress, write, sync, publish      |
| bare       | a loop over MONAI's transforms, results dropped                                    |
| peer       | the first pass of MONAI's PersistentDataset with them, which writes what it caches |
| decompress | Python's gzip alone: the floor                                                     |

Ratios are medians over the rounds. Of two data sets the worse ratio stands in the last line.
"""

import argparse
import cProfile
import gzip
import json
import pstats
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
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
        values = yaml.safe_load((REPO / "presets/phantom.yaml").read_text())
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
                LoadImage(image_only=True),
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

    def turn(name: str, work: Callable[[], object]) -> None:
        times.setdefault(name, []).append(_seconds(work))

    with _warm(1) as (one, _), _warm(2) as (two, start):
        for _ in range(rounds):
            with TemporaryDirectory() as folder:
                own, cache = Layout(Path(folder) / "own"), Path(folder) / "cache"
                turn("ingest", lambda own=own: ingest(params, own, each=map))  # type: ignore[misc]
                turn("reingest", lambda own=own: ingest(params, own, each=map))  # type: ignore[misc]
                turn("bare", lambda: bare(paths, transforms))
                turn("peer", lambda cache=cache: peer(paths, transforms, cache))  # type: ignore[misc]
                turn("decompress", lambda: decompress(paths))
            for name, each in (("one", one), ("two", two)):
                with TemporaryDirectory() as folder:
                    data_of = Layout(Path(folder))
                    turn(name, lambda d=data_of, e=each: ingest(params, d, each=e))  # type: ignore[misc]
    return {
        "volumes": len(paths),
        **{f"ms_{name}": 1e3 * median(t) / len(paths) for name, t in times.items()},
        "ratio_bare": _ratio(times["ingest"], times["bare"]),
        "ratio_peer": _ratio(times["peer"], times["ingest"]),
        "ratio_floor": _ratio(times["ingest"], times["decompress"]),
        "scaling_2_workers": _ratio(times["one"], times["two"]),
        "reingest_seconds": max(times["reingest"]),
        "pool_start_seconds": start,
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
        "sync": own[("publish", "_sync")],
    }


def _seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


def _ratio(first: list[float], second: list[float]) -> float:
    return median(a / b for a, b in zip(first, second, strict=True))


@contextmanager
def _warm(number: int) -> Iterator[tuple[Map, float]]:
    """Processes that have begun, and the seconds that it took: a cost that no scan adds to."""
    begin = time.perf_counter()
    with pool(number, "vqmri.stages.ingest_shard") as workers:
        list(workers.map(_wait, range(number)))

        def each(function: Callable[[Any], Any], items: Any, /) -> Iterator[Any]:
            return _mapped(workers, function, items)

        yield each, time.perf_counter() - begin


def _mapped(workers: ProcessPoolExecutor, function: Any, items: Any) -> Iterator[Any]:
    return iter(workers.map(function, items))


def _wait(_: int) -> None:
    """Long enough for every process to take one."""
    time.sleep(0.5)


def main() -> None:
    """Measure both data sets and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--data", type=Path, default=REPO.parent / "shared" / "data")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
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
