"""Runs in MLflow: one run per stage, models in the registry.

MLFLOW_TRACKING_URI is respected; without it everything lies in mlruns/ of the project (SQLite and
a folder of artifacts). Registered models are Python functions *from code* (`pyfunc_*.py`) with the
model folders as artifacts: no pickle is written or read.
"""

import json
import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from importlib.metadata import version
from pathlib import Path
from typing import Any

os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_ALLOW_PICKLE_DESERIALIZATION", "false")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
os.environ.setdefault("MLFLOW_LOGGING_LEVEL", "WARNING")
os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
# The signature is given, and an example would mean drawing samples.
warnings.filterwarnings("ignore", ".*input example was not provided", UserWarning)

import mlflow
import numpy as np
from mlflow.entities import LoggedModelOutput, Run
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.tracking.context.registry import resolve_tags
from mlflow.types import ColSpec, DataType, Schema, TensorSpec

import vqmri
from vqmri.errors import InputError
from vqmri.outputs import replace_file
from vqmri.outputs.rehearsal import rehearsed
from vqmri.terminal import flat
from vqmri.tracking.address import part_from_credentials, shown
from vqmri.tracking.load import Load
from vqmri.tracking.sender import EXPERIMENT, Sender, digest
from vqmri.tracking.spool import now
from vqmri.tracking.tracker import NullTracker
from vqmri.training.model_folder import DESCRIPTION

CHALLENGER = "challenger"
RUN = "mlflow-run"
_DRAW = [ColSpec(DataType.long, "seed"), ColSpec(DataType.long, "number")]
_NEEDED = (
    "jaxtyping", "mlflow", "numba", "numpy", "pandas", "safetensors", "scipy", "threadpoolctl",
    "torch", "zarr",
)  # fmt: skip

log = logging.getLogger(__name__)
_current: ContextVar["MlflowTracker | None"] = ContextVar("_current", default=None)


class MlflowTracker:
    """Writes down what a stage wants remembered, for a thread to send. It waits for no server."""

    def __init__(self, sender: Sender, stage: str, parent: str | None = None) -> None:
        self.sender, self._is_outermost = sender, parent is None
        self.spool = sender.begin({"name": stage, "parent": parent, "tags": resolve_tags()})
        self._load = Load(self.metrics)

    def params(self, values: Mapping[str, Any]) -> None:
        told = {name: str(value) for name, value in flat(values).items() if value != {}}
        self._note("params", values=told)

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        self._note("metrics", values={k: float(v) for k, v in values.items()}, step=step)

    def resume(self, state: Path) -> None:
        """Go on in the run of this training, which has its name in `state` from the first on."""
        memory = state / RUN
        try:
            if not memory.is_file():
                replace_file(memory, self.spool.start["id"].encode())
            self._note("resume", training=memory.read_text(encoding="utf-8"))
        except OSError as error:
            log.warning("After a cut this training will begin a new run in MLflow: %s", error)

    def model(self, name: str, folders: Mapping[str, Path]) -> None:
        """Register the folders as the next version of `name`, and call that the challenger."""
        self._note(
            "model",
            name=name,
            folders={key: str(folder.resolve()) for key, folder in folders.items()},
            digests={key: digest(folder) for key, folder in folders.items()},
        )

    def artifacts(self, folder: Path) -> None:
        """Keep a copy of the files of a published folder with the run."""
        self._note("artifacts", folder=str(folder.resolve()), digest=digest(folder))

    def end(self, status: str) -> None:
        """The run has ended; MLflow is given a while to learn of it."""
        self._load.stop()
        self._note("end", status=status)
        self.sender.wait(self.spool)
        if self._is_outermost:
            self.sender.close()

    def _note(self, event: str, **about: Any) -> None:
        self.spool.append({"event": event, "time": now(), **about})


def register(name: str, folders: Mapping[str, Path], run: Run | None = None) -> int:
    """Make the folders the next version of `name`, and call it the challenger; its number.

    run: whose model it is; that which is active, unless it is given
    """
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
        model_id=run and _logged_model(name, folders, run),
    )
    number = str(info.registered_model_version)
    mlflow.MlflowClient().set_registered_model_alias(name, CHALLENGER, number)
    return int(number)


def register_once(name: str, folders: Mapping[str, Path], run: Run, since: int) -> None:
    """The same, unless it is there: this run's, or one of these weights that is newer than `since`.

    since: milliseconds since 1970
    """
    client = mlflow.MlflowClient()
    versions = client.search_model_versions(f"name = '{name}'", order_by=["version_number DESC"])
    weights = weights_tags(folders).items()
    for made in versions:
        is_it = made.run_id == run.info.run_id or made.creation_timestamp >= since
        if is_it and weights <= made.tags.items():
            if made is versions[0]:  # cut off before the alias was set
                client.set_registered_model_alias(name, CHALLENGER, made.version)
            return
    register(name, folders, run)


def _logged_model(name: str, folders: Mapping[str, Path], run: Run) -> str:
    """A model of a run, still without its files; its id."""
    client = mlflow.MlflowClient()
    model = client.create_logged_model(
        run.info.experiment_id, name, run.info.run_id, weights_tags(folders), run.data.params
    )
    client.log_outputs(run.info.run_id, [LoggedModelOutput(model.model_id, 0)])
    return model.model_id


def weights_tags(folders: Mapping[str, Path]) -> dict[str, str]:
    """Tags of a version that say whose weights it holds: the sha256 of each folder's."""
    return {f"{key}_weights": _read(folder)["about"]["weights"] for key, folder in folders.items()}


def _read(folder: Path) -> dict[str, Any]:
    return json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))


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
    """A tracker with a run of the stage's name, or one that does nothing if none can be kept.

    A run that is begun within another, as a stage's within the pipeline's, is its child. What no
    server takes is kept in mlruns/spool/ of the project, and sent when it answers again, by this
    run or by a later one.
    """
    before = _current.get()
    try:
        server, folder = _point(root), root.resolve() / "mlruns" / "spool"
        if before and (before.sender.folder, before.sender.server) == (folder, server):
            tracker = MlflowTracker(before.sender, stage, before.spool.start["id"])
        else:
            sender = Sender(folder, server, mlflow.get_tracking_uri(), register_once)
            tracker = MlflowTracker(sender, stage)
    except (MlflowException, OSError) as error:
        log.warning("MLflow does not answer; this run is not tracked: %s", shown(error))
        yield NullTracker()
        return
    _current.set(tracker)
    status = "FAILED"
    try:
        yield tracker
        status = "FINISHED"
    finally:
        _current.set(before)
        tracker.end(status)


def _point(root: Path) -> str:
    """Point MLflow at its store, as `connect`, but ask no server; its address.

    Empty for the project's own store.
    """
    part_from_credentials()
    uri = os.environ.get("MLFLOW_TRACKING_URI", "")
    if not uri.startswith("http"):
        connect(root)
        need_experiment(root)
        return uri
    mlflow.set_tracking_uri(uri)
    return uri


def connect(root: Path) -> None:
    """Point MLflow at MLFLOW_TRACKING_URI, or at mlruns/ of the project.

    Raises InputError for an address that is none, and when a rehearsal finds neither.
    """
    part_from_credentials()
    if uri := os.environ.get("MLFLOW_TRACKING_URI"):
        mlflow.set_tracking_uri(uri)
        return
    store = root.resolve() / "mlruns"
    if rehearsed() and not store.is_dir():
        raise InputError(
            f"there is no registry: {store} is missing. `vqmri register` makes it, or name a "
            "server in MLFLOW_TRACKING_URI."
        )
    store.mkdir(exist_ok=True)
    mlflow.set_tracking_uri(f"sqlite:///{store / 'mlflow.db'}")
    os.environ.pop("MLFLOW_TRACKING_URI", None)  # MLflow sets it: it would stick to this project


def need_experiment(root: Path) -> None:
    """After `connect`: have what runs are logged in, which those who only read do not need."""
    if "MLFLOW_TRACKING_URI" not in os.environ and not mlflow.get_experiment_by_name(EXPERIMENT):
        place = root.resolve() / "mlruns" / "artifacts"
        mlflow.create_experiment(EXPERIMENT, place.as_uri())
    mlflow.set_experiment(EXPERIMENT)
