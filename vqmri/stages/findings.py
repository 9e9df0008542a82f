"""Everything that the report shows, and what other stages found, read."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from vqmri.errors import IntegrityError
from vqmri.evaluation.gates import Verdict
from vqmri.outputs import Manifest
from vqmri.protocols import Metrics
from vqmri.stages.privacy import Privacy
from vqmri.stages.realism import Realism
from vqmri.stages.study import DECODED, TABLE
from vqmri.stages.use import PREDICTIONS
from vqmri.stages.use import TABLE as USE_TABLE


@dataclass(frozen=True)
class Shown:
    """What is pictured: held-out volumes with their labels, reconstructions, samples.

    All channels are in [0, 1]; a label map's indices were divided by the largest.

    neighbours: of each sample, the training scan nearest to it, and their correlation
    spacing: mm along each axis, () for pictures
    """

    labels: Sequence[str]
    volumes: Float[np.ndarray, "held channel *space"]
    reconstructions: Float[np.ndarray, "held channel *space"]
    samples: Float[np.ndarray, "sample channel *space"]
    neighbours: Sequence[tuple[np.ndarray, float]]
    spacing: tuple[float, ...]


@dataclass(frozen=True)
class Studied:
    """The table of the study of the prior, and slices of each row; empty without a study."""

    rows: Sequence[Mapping[str, Any]]
    decoded: Sequence[Float[np.ndarray, "item ..."]]


def read_study(folder: Path, inputs: Mapping[str, str]) -> Studied:
    """A published study; IntegrityError when it is damaged, or of other outputs than `inputs`."""
    _check(folder, inputs, "study")
    rows = json.loads((folder / TABLE).read_text(encoding="utf-8"))
    if not rows:
        return Studied([], [])
    with np.load(folder / DECODED) as arrays:
        return Studied(rows, [arrays[f"way_{index}"] for index in range(len(rows))])


@dataclass(frozen=True)
class Used:
    """What nets learnt from the samples: rows of the table, and the arrays of each."""

    rows: Sequence[Mapping[str, Any]]
    arrays: Sequence[Mapping[str, np.ndarray]]


def read_use(folder: Path, inputs: Mapping[str, str]) -> Used:
    """A published `use`; IntegrityError when it is damaged, or of other outputs than `inputs`."""
    _check(folder, inputs, "use")
    rows = json.loads((folder / USE_TABLE).read_text(encoding="utf-8"))
    if not rows:
        return Used([], [])
    with np.load(folder / PREDICTIONS) as arrays:
        kept = dict(arrays)
    return Used(rows, [
        {name.split("_", 1)[1]: a for name, a in kept.items() if name.split("_", 1)[0] == str(n)}
        for n in range(len(rows))
    ])  # fmt: skip


def _check(folder: Path, inputs: Mapping[str, str], stage: str) -> None:
    manifest = Manifest.read(folder)
    manifest.check(folder, list(manifest.items))
    for name, found in manifest.provenance["inputs"].items():
        if found != inputs[name]:
            raise IntegrityError(
                f"{folder} was made of other {name} ({found[:16]}) than those that are there now "
                f"({inputs[name][:16]}). Run `vqmri {stage}`."
            )


@dataclass(frozen=True)
class Found:
    """Everything that was measured.

    used: rows of the stage `use`, and its arrays
    ventricles: of phantoms, ages and volumes, for a picture
    """

    metrics: Metrics
    histories: Mapping[str, Sequence[Metrics]]
    studied: Studied
    used: Used
    realism: Realism
    privacy: Privacy
    ventricles: Mapping[str, np.ndarray]
    verdicts: Sequence[Verdict]
