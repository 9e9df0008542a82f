"""Tracking against a real server that is absent, dies, hangs, or answers again later."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow.exceptions import MlflowException

from tests.faults import Record, tell
from tests.servers import free_port, process, wait_for
from vqmri.tracking import sender
from vqmri.tracking.mlflow import tracked, weights_tags
from vqmri.tracking.spool import Spool

Serve = Callable[[], AbstractContextManager["subprocess.Popen[bytes]"]]
Points = list[tuple[int, float]]


@pytest.fixture
def serve(
    tmp_path: Path, shell: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> Callable[[], AbstractContextManager["subprocess.Popen[bytes]"]]:
    """Starts the server that MLFLOW_TRACKING_URI names, again and again on the same database."""
    port = free_port()
    uri, log = f"http://127.0.0.1:{port}", tmp_path / "server.log"
    command = (
        "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
        "--backend-store-uri", f"sqlite:///{tmp_path / 'mlflow.db'}",
        "--artifacts-destination", str(tmp_path / "artifacts"),
    )  # fmt: skip
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "30")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setattr(sender, "RETRY", 1.0)

    @contextmanager
    def started() -> Iterator["subprocess.Popen[bytes]"]:
        with process(tmp_path, shell, log, *command) as server:
            wait_for(f"{uri}/health", server, log)
            yield server

    return started


def spools(root: Path) -> list[Path]:
    return sorted((root / "mlruns" / "spool").glob("*.jsonl"))


def send_what_is_left(root: Path) -> None:
    """One more run, or as many as a busy machine's server needs to answer in time."""
    for _ in range(20):
        with tracked("encode", root):
            pass
        if not spools(root):
            return
    raise AssertionError(f"never sent: {spools(root)}")


def runs(**which: Any) -> list[Any]:
    """All runs that are not deleted, the oldest first."""
    found: list[Any] = mlflow.search_runs(
        experiment_names=["vqmri"], output_format="list", order_by=["start_time"], **which
    )
    return found


def history(run: Any, key: str = "loss") -> Points:
    points = mlflow.MlflowClient().get_metric_history(run.info.run_id, key)
    return sorted((point.step, point.value) for point in points)


def train(root: Path, steps: range, *, within: Callable[[int], None] = lambda step: None) -> Points:
    """A run of some steps; what it tracked. No step waits for the server."""
    logged = []
    with tracked("train_vqvae", root) as tracker:
        tracker.params({"train_vqvae": {"steps": len(steps)}})
        for step in steps:
            within(step)
            began = time.perf_counter()
            tracker.metrics({"loss": 1 / (1 + step)}, step=step)
            assert time.perf_counter() - began < 0.05
            logged.append((step, 1 / (1 + step)))
    return logged


@pytest.mark.services
@pytest.mark.faults
def test_what_was_tracked_without_a_server_arrives_once(
    tmp_path: Path, serve: Serve, record_property: Record
) -> None:
    report = tmp_path / "report"
    report.mkdir()
    (report / "report.html").write_text("seen")
    with tracked("pipeline", tmp_path):
        logged = train(tmp_path, range(300))
        with tracked("evaluate", tmp_path) as tracker:
            tracker.artifacts(report)
    assert len(spools(tmp_path)) == 3
    kept = {path: path.read_bytes() for path in spools(tmp_path)}
    with serve():
        for _ in range(2):  # the second time from nothing but the events, all sent before
            send_what_is_left(tmp_path)
            found = {run.info.run_name: run for run in runs()}
            others = [run for run in runs() if run.info.run_name != "encode"]
            assert len(others) == len(found) - 1 == 3
            assert history(found["train_vqvae"]) == logged
            assert found["train_vqvae"].data.params == {"train_vqvae.steps": "300"}
            assert {run.info.status for run in found.values()} == {"FINISHED"}
            top = found["pipeline"].info
            child = found["train_vqvae"]
            assert child.data.tags["mlflow.parentRunId"] == top.run_id
            assert top.start_time <= child.info.start_time <= child.info.end_time <= top.end_time
            page = f"runs:/{found['evaluate'].info.run_id}/report/report.html"
            assert mlflow.artifacts.load_text(page) == "seen"
            for path, text in kept.items():
                path.write_bytes(text)
    tell(record_property, "MLflow away from the start", 1, 1, "all of it arrives later, once")


@pytest.mark.services
@pytest.mark.faults
def test_a_server_that_dies_in_mid_run_and_comes_back_has_every_point_once(
    tmp_path: Path, serve: Serve, record_property: Record
) -> None:
    with serve() as server:

        def kill(step: int) -> None:
            if step == 10:
                while not any(history(run) for run in runs()):
                    time.sleep(0.2)
                os.killpg(server.pid, signal.SIGKILL)
                server.wait(30)

        logged = train(tmp_path, range(20), within=kill)
    assert len(spools(tmp_path)) == 1
    with serve():
        (run,) = runs()
        assert 0 < len(history(run)) < 20
        assert run.info.status == "RUNNING"
        send_what_is_left(tmp_path)
        (train_run,) = (run for run in runs() if run.info.run_name == "train_vqvae")
        assert history(train_run) == logged
        assert train_run.info.status == "FINISHED"
    tell(record_property, "MLflow killed in mid-run", 1, 1, "all of it arrives later, once")


@pytest.mark.services
def test_within_one_run_a_server_that_answers_again_gets_what_it_missed(
    tmp_path: Path, serve: Serve
) -> None:
    with tracked("train_vqvae", tmp_path) as tracker:
        for step in range(5):
            tracker.metrics({"loss": float(step)}, step=step)
        with serve():
            tracker.metrics({"loss": 5.0}, step=5)
            for _ in range(600):
                if mlflow.get_experiment_by_name("vqmri") and runs() and history(runs()[0])[5:]:
                    break
                time.sleep(0.1)
            assert history(runs()[0]) == [(step, float(step)) for step in range(6)]


@pytest.mark.services
@pytest.mark.faults
def test_a_server_that_hangs_keeps_no_step_waiting_and_begins_no_run_twice(
    tmp_path: Path,
    serve: Serve,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    record_property: Record,
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "3")
    with serve() as server:

        def hang(step: int) -> None:
            if step in (0, 10):
                os.killpg(server.pid, signal.SIGSTOP if step == 0 else signal.SIGCONT)
            if step == 3:
                time.sleep(8)  # requests time out that the server will carry out when it goes on

        logged = train(tmp_path, range(20), within=hang)
        send_what_is_left(tmp_path)
        (run,) = (run for run in runs() if run.info.run_name == "train_vqvae")
        assert history(run) == logged

        began = time.perf_counter()
        with tracked("sample", tmp_path) as tracker:
            os.killpg(server.pid, signal.SIGSTOP)
            tracker.metrics({"loss": 1.0})
        assert time.perf_counter() - began < sender.PATIENCE + 2
        os.killpg(server.pid, signal.SIGCONT)
    assert caplog.text.count("will be sent later") >= 2
    tell(
        record_property,
        "MLflow hangs in mid-run",
        1,
        1,
        "no step waits; all of it arrives later, once",
    )


@pytest.fixture
def local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a store of its own, and a sender that tries again without delay."""
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.setattr(sender, "RETRY", 0.01)
    monkeypatch.setattr(sender, "PAUSE", 0.01)
    with tracked("ingest", tmp_path):
        pass
    return tmp_path


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("call", range(1, 9))
@pytest.mark.faults
def test_cut_off_at_any_request_and_begun_again_nothing_is_there_twice(
    local: Path, monkeypatch: pytest.MonkeyPatch, call: int, after: bool, record_property: Record
) -> None:
    """after: the request is carried out, and its answer is lost"""
    calls = 0

    def cut(name: str) -> None:
        method = getattr(mlflow.MlflowClient, name)

        def request(*arguments: Any, **named: Any) -> Any:
            nonlocal calls
            calls += 1
            done = method(*arguments, **named) if calls < call or after else None
            if calls >= call:
                raise MlflowException("gone")
            return done

        patch.setattr(mlflow.MlflowClient, name, request)

    state = local / "state"
    with monkeypatch.context() as patch:
        for name in ("create_run", "log_batch", "set_tag", "update_run", "delete_run"):
            cut(name)
        for name in ("set_terminated", "search_runs"):
            cut(name)
        expected = []
        for first in (0, 150):  # a training, and its resumption
            with tracked("train_vqvae", local) as tracker:
                tracker.params({"steps": 300})
                tracker.resume(state)
                for step in range(first, first + 150):
                    tracker.metrics({"loss": step / 7}, step=step)
                    expected.append((step, step / 7))
    assert len(spools(local)) >= 1
    with tracked("encode", local):
        pass
    assert spools(local) == []
    _, run, _ = runs()
    assert history(run) == expected
    assert run.info.status == "FINISHED"
    tell(
        record_property,
        "MLflow cut off at a request",
        1,
        1,
        "nothing is missing, nothing there twice",
    )


def test_a_run_whose_process_was_killed_is_ended_by_the_next(local: Path) -> None:
    folder = local / "mlruns" / "spool"
    spool = Spool.begin(folder, {"server": "", "name": "sample", "parent": None, "tags": {}})
    spool.append({"event": "metrics", "time": 1, "values": {"loss": 1.0}, "step": 0})
    with tracked("encode", local):  # its process lives
        pass
    assert len(spools(local)) == 1
    with spool.path.open("a") as file:
        file.write('{"event": "metr')
    spool.close()
    with tracked("encode", local):
        pass
    assert spools(local) == []
    found = {run.info.run_name: run for run in runs()}
    assert found["sample"].info.status == "KILLED"
    assert history(found["sample"]) == [(0, 1.0)]


def test_what_was_meant_for_another_server_waits_for_it(local: Path) -> None:
    about: dict[str, Any] = {
        "server": "https://elsewhere",
        "name": "sample",
        "parent": None,
        "tags": {},
    }
    Spool.begin(local / "mlruns" / "spool", about).close()
    with tracked("encode", local):
        pass
    assert len(spools(local)) == 1
    assert "sample" not in {run.info.run_name for run in runs()}


def test_what_mlflow_refuses_is_left_out_and_the_rest_arrives(
    local: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with tracked("encode", local) as tracker:
        tracker.metrics({"loss": 1.0}, step=1)
        tracker.metrics({"what?!": 1.0}, step=2)
        tracker.params({"a": 1})
        tracker.model("vqmri-vqvae", {"vqvae": local})  # no model is there
        tracker.metrics({"loss": 2.0}, step=3)
    assert spools(local) == []
    assert history(runs()[-1]) == [(1, 1.0), (3, 2.0)]
    assert runs()[-1].data.params == {"a": "1"}
    assert "left out" in caplog.text


def test_a_password_is_not_written_down(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://me:secret@127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with tracked("encode", tmp_path):
        pass
    (spool,) = spools(tmp_path)
    assert b"secret" not in spool.read_bytes()


def test_a_model_is_registered_once_and_only_while_it_is_the_same(
    local: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    name, model = "vqmri-vqvae", local / "vqvae"
    model.mkdir()
    (model / "model.json").write_text(json.dumps({"about": {"weights": "a" * 64}}))
    (model / "MANIFEST.json").write_text("first")
    client = mlflow.MlflowClient()
    client.create_registered_model(name)

    def register(name: str, folders: dict[str, Path], run: Any) -> None:
        made = client.create_model_version(
            name, "nowhere", run.info.run_id, tags=weights_tags(folders)
        )
        if made.version in (1, "1"):
            raise MlflowException("gone before the alias was set")

    monkeypatch.setattr("vqmri.tracking.mlflow.register", register)

    def versions() -> list[int]:
        return [int(v.version) for v in client.search_model_versions(f"name = '{name}'")]

    for _ in range(2):  # its registration fails half way; what is left over is taken up again
        with tracked("train_vqvae", local) as tracker:
            tracker.model(name, {"vqvae": model})
    assert spools(local) == []
    assert sorted(versions()) == [1, 2]  # one for each run
    monkeypatch.setattr(sender.Sender, "_attempt", lambda self: self._failed.update(self._spools))
    with tracked("train_vqvae", local) as tracker:
        tracker.model(name, {"vqvae": model})
    monkeypatch.undo()
    (model / "MANIFEST.json").write_text("second")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    with tracked("encode", local):
        pass
    assert spools(local) == []
    assert sorted(versions()) == [1, 2]
    assert "has changed since its run" in caplog.text
