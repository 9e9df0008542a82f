"""Runs in MLflow: one run per stage, models in the registry.

MLFLOW_TRACKING_URI is respected; without it everything lies in mlruns/ of the project (SQLite and
a folder of artifacts). Registered models are Python functions *from code* (`pyfunc_*.py`) with the
model folders as artifacts: no pickle is written or read.
"""

import json
import logging
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "2")

import mlflow
import numpy as np
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, Schema, TensorSpec

import vqmri
from vqmri.outputs import replace_file
from vqmri.tracking.address import part_from_credentials, shown
from vqmri.tracking.tracker import NullTracker
from vqmri.training.model_folder import DESCRIPTION

EXPERIMENT = "vqmri"
CHALLENGER = "challenger"
RUN = "mlflow-run"
_DRAW = [ColSpec(DataType.long, "seed"), ColSpec(DataType.long, "number")]
_NEEDED = (
    "jaxtyping", "mlflow", "numba", "numpy", "pandas", "safetensors", "scipy", "threadpoolctl",
    "torch", "tqdm", "zarr",
)  # fmt: skip

log = logging.getLogger(__name__)
logging.getLogger("mlflow.system_metrics").setLevel(logging.WARNING)  # it tells of every start


class MlflowTracker:
    """Logs to the active run. When the server stops answering it says so, and the stage goes on."""

    def __init__(self) -> None:
        self._alive = True

    def params(self, values: Mapping[str, Any]) -> None:
        self._try(lambda: mlflow.log_params(_flat(values)))

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        self._try(lambda: mlflow.log_metrics(dict(values), step=step))

    def resume(self, state: Path) -> None:
        """The id of the run lies in `state`; the run just begun gives way to an earlier one."""
        self._try(lambda: _resume(state / RUN))

    def model(self, name: str, folders: Mapping[str, Path]) -> None:
        """Register the folders as the next version of `name`, and call that the challenger."""
        self._try(lambda: register(name, folders))

    def artifacts(self, folder: Path) -> None:
        """Keep a copy of the files of a published folder with the run."""
        self._try(lambda: mlflow.log_artifacts(str(folder), folder.name))

    def _try(self, action: Callable[[], object]) -> None:
        """Do it, unless tracking has failed before: a dead server costs its time-out only once."""
        if not self._alive:
            return
        try:
            action()
        except (MlflowException, OSError) as error:
            self._alive = False
            reason = shown(error)
            log.warning("Tracking failed; from here on this run is not tracked: %s", reason)


def _resume(memory: Path) -> None:
    """Take up the run that `memory` names, if this server still has it; else let it name this one.

    The run that was begun for the resumption holds nothing yet and is deleted.
    """
    own = mlflow.active_run()
    if own is None:
        return
    earlier = memory.read_text(encoding="utf-8") if memory.is_file() else ""
    if not _has(earlier):
        replace_file(memory, own.info.run_id.encode())
        return
    mlflow.end_run()
    mlflow.delete_run(own.info.run_id)
    _start(run_id=earlier)


def _start(**which: str) -> None:
    """Begin a run, within the one that is active if there is one; the machine's load goes to it."""
    within = mlflow.active_run() is not None
    mlflow.start_run(nested=within, log_system_metrics=True, **which)


def _has(run_id: str) -> bool:
    try:
        return bool(run_id) and mlflow.get_run(run_id).info.lifecycle_stage == "active"
    except MlflowException:
        return False


def register(name: str, folders: Mapping[str, Path]) -> int:
    """Make the folders the next version of `name`, and call it the challenger; its number."""
    code = Path(__file__).with_name(f"pyfunc_{name.removeprefix('vqmri-')}.py")
    info = mlflow.pyfunc.log_model(
        name=name,
        python_model=str(code),
        artifacts={key: str(folder) for key, folder in folders.items()},
        code_paths=[str(Path(vqmri.__file__).parent)],
        signature=_signature(folders),
        pip_requirements=[f"{p}=={version(p).split('+')[0]}" for p in _NEEDED],
        registered_model_name=name,
        tags=weights_tags(folders),
    )
    number = str(info.registered_model_version)
    mlflow.MlflowClient().set_registered_model_alias(name, CHALLENGER, number)
    return int(number)


def weights_tags(folders: Mapping[str, Path]) -> dict[str, str]:
    """Tags of a version that say whose weights it holds: the sha256 of each folder's."""
    return {f"{key}_weights": _read(folder)["about"]["weights"] for key, folder in folders.items()}


def _read(folder: Path) -> dict[str, Any]:
    description: dict[str, Any] = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
    return description


def _signature(folders: Mapping[str, Path]) -> ModelSignature:
    """Arrays of volumes; of the generator draws, with a column for each covariate that may lack."""
    about = _read(folders["vqvae"])["about"]
    axes = (-1,) * (1 + len(about["shape"]))
    volumes = Schema([TensorSpec(np.dtype(np.float32), axes)])
    if "prior" not in folders:
        return ModelSignature(inputs=volumes, outputs=volumes)
    prior = _read(folders["prior"])
    covariates = [
        ColSpec(
            DataType.string if "values" in covariate else DataType.double,
            covariate["name"],
            required=False,
        )
        for covariate in prior["arguments"]["covariates"]
    ]
    return ModelSignature(inputs=Schema([*_DRAW, *covariates]), outputs=volumes)


@contextmanager
def tracked(stage: str, root: Path) -> Iterator[MlflowTracker | NullTracker]:
    """A tracker with a run of the stage's name, or one that does nothing if no server answers.

    A run that is begun within another, as a stage's within the pipeline's, is its child.
    """
    try:
        connect(root)
        _start(run_name=stage)
    except (MlflowException, OSError) as error:
        log.warning("MLflow does not answer; this run is not tracked: %s", shown(error))
        yield NullTracker()
        return
    status = "FAILED"
    try:
        yield MlflowTracker()
        status = "FINISHED"
    finally:
        try:
            mlflow.end_run(status)
        except (MlflowException, OSError) as error:  # what the stage published stands
            reason = shown(error)
            log.warning("MLflow does not answer; the end of this run is not tracked: %s", reason)


def connect(root: Path) -> None:
    """Point MLflow at MLFLOW_TRACKING_URI, or at mlruns/ of the project."""
    part_from_credentials()
    if uri := os.environ.get("MLFLOW_TRACKING_URI"):
        mlflow.set_tracking_uri(uri)
        mlflow.set_experiment(EXPERIMENT)
        return
    store = root.resolve() / "mlruns"
    store.mkdir(exist_ok=True)
    mlflow.set_tracking_uri(f"sqlite:///{store / 'mlflow.db'}")
    os.environ.pop("MLFLOW_TRACKING_URI", None)  # MLflow sets it: it would stick to this project
    if mlflow.get_experiment_by_name(EXPERIMENT) is None:
        mlflow.create_experiment(EXPERIMENT, (store / "artifacts").as_uri())
    mlflow.set_experiment(EXPERIMENT)


def _flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings to dotted names."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping):
            flat |= _flat(value, f"{prefix}{name}.")
        else:
            flat[prefix + name] = value
    return flat
