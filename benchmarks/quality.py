"""Are the samples any good, are they anyone's, and can they be used?

    python -m benchmarks.quality --preset hippocampus --raw FOLDER [--project DIR] [--set A.B=C …]

Makes a project of a preset in DIR, copies the raw scans there, runs every stage whose output is not
there yet or was made of others than are there, and prints what data/metrics.json says. For the
hippocampus the table of subjects gets the column `side`, even or odd by the number of the file:
scans come in pairs, left and right of one person. The prior is conditioned on it.

The last line is one JSON object. `frechet_ratio`, `mmd_ratio` and `coverage` (a ratio too) are of
samples to held-out scans over as many training scans to held-out scans. null: not measured.
"""

import argparse
import csv
import json
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from vqmri.cli import PRESETS
from vqmri.errors import InputError, VqmriError
from vqmri.layout import MADE_BY, Layout
from vqmri.outputs import Manifest
from vqmri.outputs.manifest import MANIFEST, digest
from vqmri.params import PARAMS, Params
from vqmri.protocols import Metrics
from vqmri.stages.run import run

SIDE = "side"
_SIDES = ("odd", "even")
_GUIDANCE = 1.7
_SHOWN = (
    "psnr_db", "bits_per_voxel", "prior_bits_per_code", "marginal_bits_per_code", "frechet_ratio",
    "frechet_ratio_encoder", "mmd_ratio", "mmd_ratio_encoder", "coverage_ratio",
    "coverage_ratio_encoder", "precision", "recall", "diversity_ms_ssim",
    "diversity_ms_ssim_of_real", "mia_auc", "mia_control", "mia_of_overtrained_auc",
    "nearest_correlation_most", "nearest_correlation_of_held_out_most",
    "nearer_to_training_by_correlation", "nearer_to_training_by_features",
    "ventricle_slope_ratio",
)  # fmt: skip


def prepare(
    preset: str, raw: Path | None, project: Path, changes: Sequence[tuple[str, Any]] = ()
) -> None:
    """Write params.yaml and the raw scans of a project.

    changes: dotted names of params and their values
    Raises InputError when the project has other params, or scans are needed and `raw` is None.
    """
    values = yaml.safe_load((PRESETS / f"{preset}.yaml").read_text(encoding="utf-8"))
    source = values["ingest"]["source"]
    sided = source.get("table") == "subjects.tsv"
    if sided:
        _by_side(values)
    for name, value in changes:
        *path, last = name.split(".")
        section = values
        for part in path:
            section = section[part]
        section[last] = value
    Params.model_validate(values)
    target = project / values["ingest"]["raw"]
    if source["kind"] != "phantom" and not target.exists():
        if raw is None:
            raise InputError(f"the preset {preset} needs scans: name their folder with --raw.")
        shutil.copytree(raw, target)
        if sided:
            _add_side(target / source["table"], source["file_column"])
    text = yaml.safe_dump(values, sort_keys=False)
    place = project / PARAMS
    if place.is_file() and place.read_text(encoding="utf-8") != text:
        raise InputError(f"{place} is of another run. Name another --project, or delete that one.")
    project.mkdir(parents=True, exist_ok=True)
    place.write_text(text, encoding="utf-8")


def _by_side(values: dict[str, Any]) -> None:
    """Condition on the side and ask for both in turns, with guidance: the sides differ little."""
    values["ingest"]["source"]["covariates"] = [SIDE]
    values["train_prior"]["conditions"] = [SIDE]
    values["sample"] |= {"covariates": {SIDE: list(_SIDES)}, "guidance": _GUIDANCE}


def _add_side(table: Path, file_column: str) -> None:
    """Even or odd, by the number in the file's name."""
    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    for row in rows:
        number = int("".join(filter(str.isdigit, row[file_column].split(".")[0])))
        row[SIDE] = "odd" if number % 2 else "even"
    with table.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter="\t", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def run_all(project: Path) -> Metrics:
    """Every stage that must run; all figures."""
    data = Layout(project)
    for name, stage in MADE_BY.items():
        if not _is_made(data, name):
            run(stage, project)
    metrics: Metrics = json.loads(data.metrics.read_text(encoding="utf-8"))
    return metrics


def _is_made(data: Layout, name: str) -> bool:
    """Whether an output is there, and of the inputs that are there."""
    folder = data.output(name)
    if not (folder / MANIFEST).is_file():
        return False
    inputs: dict[str, str] = Manifest.read(folder).provenance["inputs"]
    return all(
        digest(data.output(other)) == found for other, found in inputs.items() if other in MADE_BY
    )


def result(preset: str, metrics: Metrics) -> dict[str, Any]:
    """What the last line says."""
    accuracies = [n for n in metrics if n.startswith("use_") and n.endswith("_chance")]
    about = [name.removesuffix("_chance") for name in accuracies if metrics[name] > 0]
    of = about[0] if about else "use_"
    flagged = metrics.get("mia_of_overtrained_flagged")
    return {
        "benchmark": "quality",
        "preset": preset,
        "frechet_ratio": metrics.get("frechet_ratio"),
        "mmd_ratio": metrics.get("mmd_ratio"),
        "coverage": metrics.get("coverage_ratio"),
        "dice_real": metrics.get("use_dice_real"),
        "dice_synthetic_over_real": metrics.get("use_dice_synthetic_over_real"),
        "accuracy_real": metrics.get(f"{of}_real"),
        "cas_over_real": metrics.get(f"{of}_cas"),
        "mia_auc": metrics.get("mia_auc"),
        "positive_control_flagged": None if flagged is None else bool(flagged),
        "metrics": metrics,
    }


def table(metrics: Metrics) -> str:
    """A row per figure, with its 95 % interval where it has one."""
    names = [n for n in metrics if n in _SHOWN or n.startswith("use_")]
    lines = [f"{'figure':44} {'value':>10}   95 % interval"]
    for name in sorted(names, key=lambda n: (n.startswith("use_"), n)):
        if name.endswith(("_low", "_high")):
            continue
        ends = [f"{metrics[k]:.4g}" for k in (f"{name}_low", f"{name}_high") if k in metrics]
        lines.append(f"{name:44} {metrics[name]:10.4g}   {' to '.join(ends)}")
    return "\n".join(lines)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    command = argparse.ArgumentParser("python -m benchmarks.quality")
    command.add_argument("--preset", required=True)
    command.add_argument("--raw", type=Path, help="folder of the raw scans")
    command.add_argument("--project", type=Path, help="default: data/quality/PRESET")
    command.add_argument("--set", nargs="*", default=[], metavar="A.B=C", dest="changes",
                         help="other values of params; C is YAML")  # fmt: skip
    return command.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; its exit code."""
    options = _parse(arguments)
    project = options.project or Path("data/quality") / options.preset
    changes = [(name, yaml.safe_load(value)) for name, _, value in
               (change.partition("=") for change in options.changes)]  # fmt: skip
    try:
        prepare(options.preset, options.raw, project, changes)
        metrics = run_all(project)
    except VqmriError as error:
        print(f"benchmarks.quality: {error}", file=sys.stderr)
        return error.exit_code
    print(table(metrics))
    print(json.dumps(result(options.preset, metrics), allow_nan=False), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
