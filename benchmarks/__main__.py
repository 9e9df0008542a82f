"""Benchmarks by name, and the README's tables from what they found.

    python -m benchmarks [NAME …] [--data FOLDER]

Runs those that are named, or all, one after the other, each in a process of its own: hours on two
cores. The last line of each, its figures, is kept in benchmarks/results/NAME.json with date,
machine and commit, and the README's tables are written from all that is kept there. --data holds
`hippocampus`, `oasis_t1w_ss` and `mnist`; projects and volumes lie in data/bench.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from benchmarks.page import put
from benchmarks.tables import tables
from vqmri.outputs import replace_file

HERE = Path(__file__).parent
README, RESULTS = HERE.parent / "README.md", HERE / "results"
PROJECTS = Path("data/bench")
MARK = "benchmarks"

_HIPPOCAMPI = ("--volumes", str(PROJECTS / "hippocampus/data/volumes"))
BENCHMARKS: dict[str, tuple[str, ...]] = {
    "quality-phantom": ("quality", "--preset", "phantom"),
    "quality-hippocampus": ("quality", "--preset", "hippocampus", "--raw", "{data}/hippocampus"),
    "quality-mnist": ("quality", "--preset", "mnist", "--raw", "{data}/mnist"),
    "training": ("training", *_HIPPOCAMPI),
    "quantizers": ("quantizers", *_HIPPOCAMPI),
    "frontier": (
        "frontier",
        *_HIPPOCAMPI,
        "--minutes",
        "5.5",
        "--picture",
        "docs/pictures/frontier.png",
    ),
    "quantizer_speed": ("quantizer_speed",),
    "sampling": ("sampling", "--full"),
    "ingest": ("ingest", "--data", "{data}"),
    "scale": ("scale", "--project", str(PROJECTS / "phantom")),
    "faults": ("faults", "--long", "--write", "docs/reliability.md"),
}


def command(name: str, data: Path) -> list[str]:
    """What runs a benchmark."""
    module, *options = BENCHMARKS[name]
    if module == "quality":
        options += ["--project", str(PROJECTS / options[options.index("--preset") + 1])]
    options = [option.format(data=data) for option in options]
    return [sys.executable, "-m", f"benchmarks.{module}", *options]


def run(arguments: Sequence[str]) -> dict[str, Any]:
    """What a benchmark found, and where and when. CalledProcessError when it fails."""
    began = time.monotonic()
    done = subprocess.run(arguments, check=True, text=True, stdout=subprocess.PIPE)
    print(done.stdout, end="", flush=True)
    return {
        "date": datetime.now(UTC).date().isoformat(),
        "commit": commit(),
        "machine": machine(),
        "seconds": round(time.monotonic() - began),
        "found": json.loads(done.stdout.splitlines()[-1]),
    }


def commit() -> str:
    """What is checked out, with a + when files differ from it that are not written here."""
    changed = _git("status", "--porcelain", "--untracked-files=no", "--",
                   ".", ":!README.md", ":!benchmarks/results")  # fmt: skip
    return _git("rev-parse", "--short=7", "HEAD") + "+" * bool(changed)


def _git(*arguments: str) -> str:
    command, root = ("git", *arguments), HERE.parent
    return subprocess.run(
        command, check=True, capture_output=True, text=True, cwd=root
    ).stdout.strip()


def machine() -> str:
    """Cores and processor, and the GPU if there is one."""
    lines = Path("/proc/cpuinfo").read_text().splitlines() if sys.platform == "linux" else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    processor = names[0] if names else platform.processor()
    gpu = [torch.cuda.get_device_name()] if torch.cuda.is_available() else []
    cores = len(os.sched_getaffinity(0))
    return ", ".join([f"{cores} core{'s' * (cores > 1)} of {processor}", *gpu])


def kept() -> dict[str, Mapping[str, Any]]:
    """What was found by each benchmark when it last ran."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; its exit code: 1 when a benchmark failed, the others' figures are kept."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHMARKS))
    parser.add_argument("--data", type=Path, default=HERE.parent.parent / "shared/data")
    options = parser.parse_args(arguments)
    names = options.names or list(BENCHMARKS)
    if unknown := set(names) - set(BENCHMARKS):
        parser.error(f"unknown: {', '.join(sorted(unknown))}. Known: {', '.join(BENCHMARKS)}")
    failed = []
    for name in names:
        try:
            result = run(command(name, options.data))
        except subprocess.CalledProcessError as error:
            failed.append(name)
            print(f"{name} failed: exit code {error.returncode}", file=sys.stderr)
            continue
        replace_file(RESULTS / f"{name}.json", json.dumps(result, indent=1).encode() + b"\n")
    put(README, MARK, tables(kept()))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
