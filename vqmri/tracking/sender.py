"""Brings what is spooled to MLflow, in a thread of its own: no step of a stage ever waits for it.

Each thing arrives once. A run is looked up by the tag that names its spool before it is made;
MLflow itself ignores a point of a metric or a param that it has already; a version of a model is
looked up by its run and its weights.
"""

import logging
import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# isort: split
# By way of vqmri.tracking.mlflow, which sets MLflow's environment before it imports this.
import mlflow
from mlflow.entities import Metric, Param, Run, ViewType
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID
from sqlalchemy.exc import SQLAlchemyError

from vqmri.outputs import sha256_of
from vqmri.outputs.manifest import MANIFEST
from vqmri.tracking.address import shown
from vqmri.tracking.spool import Event, Spool

EXPERIMENT = "vqmri"
SPOOL = "vqmri.spool"  # tag of a run: id of its spool
TRAINING = "vqmri.training"  # tag of a run: what the state of its training calls itself
PATIENCE = 10.0
"""Seconds that the end of a run waits for a server that is slow; for a dead one it does not."""
RETRY = 5.0  # seconds between attempts at a server that did not answer
PAUSE = 1.0  # seconds in which points gather for one request
_BATCH = 100  # events; MLflow takes 1000 points and 100 params at a time, and splits by itself
_POINTS = ("params", "metrics")
_REFUSALS = {"INVALID_PARAMETER_VALUE", "INVALID_STATE", "RESOURCE_DOES_NOT_EXIST", "BAD_REQUEST"}

log = logging.getLogger(__name__)

Register = Callable[[str, Mapping[str, Path], Run, int], object]


def digest(folder: Path) -> str:
    """What tells whether a published folder is still the same; empty for one without manifest."""
    manifest = folder / MANIFEST
    return sha256_of(manifest) if manifest.is_file() else ""


class Sender:
    """Sends the spools of one project to one server, the oldest first, until it is closed.

    server: the tracking server without its password; empty for the project's own store. Spools
        that were meant for another server wait for that one.
    uri: where that is
    register: registers folders as a model from a run, as `vqmri.tracking.mlflow.register`
    """

    def __init__(self, folder: Path, server: str, uri: str, register: Register) -> None:
        self.folder, self.server = folder, server
        self._uri, self._register = uri, register
        self._client: Any = None  # MLflow has no types
        self._experiment = ""
        self._spools: dict[Path, Spool] = {}
        self._changed = threading.Condition()
        self._wake, self._closing = threading.Event(), threading.Event()
        self._failed: set[Path] = set()
        self._uploading = False
        self._since = math.inf  # when the request under way was made
        self._thread = threading.Thread(target=self._work, name="vqmri-tracking", daemon=True)

    def begin(self, start: Event) -> Spool:
        """A spool of a run that begins now."""
        spool = Spool.begin(self.folder, {"server": self.server, **start})
        self._spools[spool.path] = spool
        if self._thread.ident is None:
            self._thread.start()
        self._wake.set()
        return spool

    def wait(self, spool: Spool) -> None:
        """Wait until an ended run is sent; for as long as it is worth while."""
        self._wake.set()
        began = time.monotonic() if self._uri.startswith("http") else math.inf
        with self._changed:
            while self._thread.is_alive() and self._is_due(spool):
                late = time.monotonic() - min(began, self._since) > PATIENCE
                if late and not self._uploading:
                    log.warning("MLflow is slow; the rest of this run will be sent later.")
                    return
                self._changed.wait(0.1)

    def _is_due(self, spool: Spool) -> bool:
        return spool.path in self._spools and spool.path not in self._failed

    def close(self) -> None:
        """Begin no further attempt; what is not sent is sent after the next start."""
        self._closing.set()
        self._wake.set()
        self._thread.join(1)  # it leaves at once, unless a request hangs

    # In the thread

    def _work(self) -> None:
        for path in sorted(self.folder.glob("*.jsonl")):
            spool = Spool.left_over(path)
            if spool is not None and spool.start["server"] == self.server:
                self._spools[path] = spool
            elif spool is not None:
                spool.close()
        self._client = mlflow.MlflowClient(self._uri)
        while not self._closing.is_set():
            self._attempt()
            self._wake.wait(RETRY if self._failed else PAUSE)
            self._wake.clear()
        for spool in self._spools.values():
            spool.close()

    def _attempt(self) -> None:
        """Send what there is. What fails waits; the others wait too when no server answers."""
        failed: set[Path] = set()
        for path, spool in sorted(self._spools.items()):
            try:
                self._send(spool)
            except Exception as error:  # whatever it is, the run must not wait for a dead thread
                if not self._failed:
                    log.warning(
                        "MLflow does not answer; what it misses will be sent later: %s",
                        shown(error),
                    )
                failed.add(path)
                if not self._answers():
                    failed |= set(self._spools)
                    break
        with self._changed:
            self._failed, self._since = failed, math.inf
            self._changed.notify_all()

    def _answers(self) -> bool:
        try:
            self._client.search_experiments(max_results=1)
        except (MlflowException, SQLAlchemyError, OSError):
            return False
        return True

    def _send(self, spool: Spool) -> None:
        self._since = time.monotonic()
        self._experiment = self._experiment or self._find_experiment()
        if spool.run is None:
            spool.run = self._begin(spool.start)
        for batch, place in _batches(spool.unsent()):
            self._since = time.monotonic()
            if batch[0]["event"] == "end":
                self._end(spool, batch[0]["status"], batch[0]["time"])
                return
            self._deliver(spool, batch)
            spool.mark(place)
        if spool.is_left:  # its process was killed
            self._end(spool, "KILLED", int(spool.path.stat().st_mtime * 1000))

    def _deliver(self, spool: Spool, batch: list[Event]) -> None:
        """Hand events over; what MLflow refuses for good is left out."""
        try:
            self._hand_over(spool, batch)
        except Exception as error:
            if _may_pass(error):
                raise
            if len(batch) > 1 and self._is_active(spool.run):
                for event in batch:
                    self._deliver(spool, [event])
            else:
                log.warning("MLflow refuses a part of a run, which is left out: %s", shown(error))

    def _hand_over(self, spool: Spool, batch: list[Event]) -> None:
        match batch[0]["event"]:
            case "params" | "metrics":
                metrics = [
                    Metric(name, value, event["time"], event["step"])
                    for event in batch if event["event"] == "metrics"
                    for name, value in event["values"].items()
                ]  # fmt: skip
                params = {
                    n: v for e in batch if e["event"] == "params" for n, v in e["values"].items()
                }
                self._client.log_batch(
                    spool.run, metrics, [Param(name, value) for name, value in params.items()]
                )
            case "resume":
                self._resume(spool, batch[0]["training"])
            case "artifacts":
                self._artifacts(spool, batch[0])
            case "model":
                self._model(spool, batch[0])

    def _begin(self, start: Event) -> str:
        """The run of a spool: that which was made before, or a new one."""
        made = self._tagged(SPOOL, start["id"], ViewType.ALL)
        if made:
            return made[0]
        tags = start["tags"] | {SPOOL: start["id"]}
        if parent := self._parent(start["parent"]):
            tags |= {MLFLOW_PARENT_RUN_ID: parent}
        run = self._client.create_run(self._experiment, start["time"], tags, start["name"])
        return run.info.run_id

    def _parent(self, spool: str | None) -> str | None:
        for other in list(self._spools.values()):
            if other.start["id"] == spool:
                if other.run is None:
                    raise OSError("the run that this one belongs to has to be made first")
                return other.run
        return next(iter(self._tagged(SPOOL, spool)), None) if spool else None

    def _find_experiment(self) -> str:
        found = self._client.get_experiment_by_name(EXPERIMENT)
        return found.experiment_id if found else self._client.create_experiment(EXPERIMENT)

    def _tagged(self, tag: str, value: str, view: int = ViewType.ACTIVE_ONLY) -> list[str]:
        """Ids of the runs with a tag of this value, the first made first."""
        found = self._client.search_runs(
            [self._experiment], f"tags.`{tag}` = '{value}'", view, order_by=["start_time"]
        )
        return [run.info.run_id for run in found]

    def _is_active(self, run: str | None) -> bool:
        return self._client.get_run(run).info.lifecycle_stage == "active"

    def _resume(self, spool: Spool, training: str) -> None:
        """Go on in the run of this training, if the server has one; else this is it from now on.

        The run that was begun for the resumption holds nothing yet and is deleted.
        """
        earlier = [run for run in self._tagged(TRAINING, training) if run != spool.run]
        if not earlier:
            self._client.set_tag(spool.run, TRAINING, training)
            return
        if self._is_active(spool.run):
            self._client.delete_run(spool.run)
        self._client.update_run(earlier[0], "RUNNING")
        spool.run = earlier[0]

    def _artifacts(self, spool: Spool, event: Event) -> None:
        folder = Path(event["folder"])
        if digest(folder) != event["digest"]:
            log.warning("%s has changed since its run, which goes without it.", folder)
            return
        with self._upload():
            self._client.log_artifacts(spool.run, folder, folder.name)

    def _model(self, spool: Spool, event: Event) -> None:
        folders = {key: Path(folder) for key, folder in event["folders"].items()}
        if any(digest(folder) != event["digests"][key] for key, folder in folders.items()):
            log.warning("%s has changed since its run and is not registered.", event["name"])
            return
        run = self._client.get_run(spool.run)
        with self._upload():
            self._register(event["name"], folders, run, event["time"])

    @contextmanager
    def _upload(self) -> Iterator[None]:
        self._uploading = True
        try:
            yield
        finally:
            self._uploading = False

    def _end(self, spool: Spool, status: str, when: int) -> None:
        """End a run, all of whose events are sent, and forget its spool.

        A request that timed out may have been carried out later, and made a second run.
        """
        try:
            for run in self._tagged(SPOOL, spool.start["id"]):
                if run != spool.run:
                    self._client.delete_run(run)
            self._client.set_terminated(spool.run, status, when)
        except MlflowException as error:
            if _may_pass(error):
                raise
            log.warning("MLflow refuses the end of a run: %s", shown(error))
        spool.remove()
        with self._changed:
            del self._spools[spool.path]
            self._changed.notify_all()


def _batches(events: Iterable[tuple[Event, int]]) -> Iterator[tuple[list[Event], int]]:
    """Points and params that follow one another together, all else alone; and where each ends."""
    batch: list[Event] = []
    end = 0
    for event, place in events:
        is_point = event["event"] in _POINTS
        if batch and (len(batch) == _BATCH or not is_point or batch[0]["event"] not in _POINTS):
            yield batch, end
            batch = []
        batch, end = [*batch, event], place
    if batch:
        yield batch, end


def _may_pass(error: Exception) -> bool:
    """Whether the same request may be taken another time."""
    if isinstance(error, MlflowException):
        return error.error_code not in _REFUSALS
    if isinstance(error, FileNotFoundError):  # what was to be sent is gone, or never was
        return False
    return isinstance(error, OSError | SQLAlchemyError)
