"""The registry's models, loaded in processes that have no project around them."""

import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import grimp
import mlflow
import pytest

from tests.servers import free_port, process, wait_for
from vqmri.layout import Layout
from vqmri.tracking.mlflow import _NEEDED, tracked
from vqmri.tracking.sender import Sender
from vqmri.tracking.tracker import NullTracker

LOAD = """
import os, sys
assert not os.path.exists("params.yaml")
os.environ["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"
import mlflow, numpy as np, pandas as pd
mlflow.set_tracking_uri(sys.argv[1])
volumes = np.random.default_rng(0).random((2, 1, 16, 24, 16), dtype=np.float32)
vqvae = mlflow.pyfunc.load_model("models:/vqmri-vqvae@challenger")
rebuilt = vqvae.predict(volumes)
assert rebuilt.shape == volumes.shape and 0 <= rebuilt.min() and rebuilt.max() <= 1
assert vqvae.predict(volumes * 0).std() != rebuilt.std()
inner = vqvae.unwrap_python_model()
codes = inner.encode(volumes)
assert codes[0].shape == (2, 4, 6, 4) and codes[0].dtype == np.int64
assert np.abs(inner.decode(codes) - rebuilt).max() < 1e-5
generator = mlflow.pyfunc.load_model("models:/vqmri-generator@challenger")
drawn = generator.predict(pd.DataFrame({"seed": [0, 7, 0], "number": [3, 0, 0]}))
many = pd.DataFrame({"seed": 0, "number": range(32), "sex": "F", "age": 60.0})
nobody = many.assign(sex=None, age=np.nan)
of_whom, of_nobody = generator.predict(many), generator.predict(nobody)
assert (of_nobody[[3, 0]] == drawn[[0, 2]]).all() and (of_whom != of_nobody).any()
assert drawn.shape == (3, 1, 16, 24, 16)
np.save("drawn.npy", drawn)
print("loaded")
"""


@pytest.fixture
def tracking_uri(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return f"sqlite:///{tmp_path / 'mlruns' / 'mlflow.db'}"


# MLflow's own, at registration: the signature is given, and an example would mean drawing samples
@pytest.mark.filterwarnings("ignore:.*type hint:UserWarning")
@pytest.mark.filterwarnings("ignore:.*input example was not provided:UserWarning")
def test_registered_models_reconstruct_and_sample_without_a_project(
    finished: Layout, tmp_path: Path, tracking_uri: str
) -> None:
    with tracked("train_prior", tmp_path) as tracker:
        tracker.params({"train_prior": {"steps": 3, "nested": {"a": 1}}})
        tracker.metrics({"loss": 0.5}, step=2)
        tracker.model("vqmri-vqvae", {"vqvae": finished.output("vqvae")})
        tracker.model(
            "vqmri-generator",
            {"vqvae": finished.output("vqvae"), "prior": finished.output("prior")},
        )
    (run,) = mlflow.search_runs(output_format="list")
    assert run.info.run_name == "train_prior"
    assert run.data.params == {"train_prior.steps": "3", "train_prior.nested.a": "1"}
    assert run.data.metrics == {"loss": 0.5}

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", LOAD, tracking_uri],
        cwd=elsewhere, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stdout.strip().endswith("loaded"), done.stdout + done.stderr

    import numpy as np

    from vqmri.prior.choice import Choice
    from vqmri.training.generator import Generator

    drawn = np.load(elsewhere / "drawn.npy")
    generator = Generator(finished.output("vqvae"), finished.output("prior"))
    assert (drawn[[0, 2]] == generator.sample(0, [3, 0], Choice())).all()
    assert (drawn[1] == generator.sample(7, [0], Choice())[0]).all()
    assert not list((tmp_path / "mlruns").rglob("*.pkl"))


def test_without_a_server_the_stage_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with tracked("encode", tmp_path) as tracker:
        tracker.metrics({"a": 1.0})
    assert caplog.text.count("will be sent later") == 1


def test_where_nothing_can_be_written_the_stage_goes_on_untracked(
    tmp_path: Path, tracking_uri: str, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "mlruns").mkdir()
    (tmp_path / "mlruns" / "spool").write_text("in the way")
    with tracked("encode", tmp_path) as tracker:
        assert isinstance(tracker, NullTracker)
        tracker.metrics({"a": 1.0})
    assert "not tracked" in caplog.text


def test_a_spool_that_cannot_be_read_stops_no_other(tmp_path: Path, tracking_uri: str) -> None:
    (tmp_path / "mlruns/spool/x.jsonl").mkdir(parents=True)
    with tracked("encode", tmp_path) as tracker:
        tracker.metrics({"a": 1.0})
    (run,) = mlflow.search_runs(output_format="list")
    assert (run.info.status, run.data.metrics["a"]) == ("FINISHED", 1.0)


def test_the_end_of_a_run_waits_for_no_thread_that_died(
    tmp_path: Path, tracking_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Sender, "_work", lambda sender: None)
    sender = Sender(tmp_path, "", tracking_uri, lambda *_: None)
    spool = sender.begin({})
    sender.wait(spool)
    spool.close()
    assert spool.path.is_file(), "it is sent after the next start"


@pytest.mark.services
def test_a_server_that_dies_in_mid_run_does_not_stop_the_stage(
    tmp_path: Path,
    shell: dict[str, str],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    port = free_port()
    uri, log = f"http://127.0.0.1:{port}", tmp_path / "server.log"
    command = (
        "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
        "--backend-store-uri", f"sqlite:///{tmp_path / 'mlflow.db'}",
        "--artifacts-destination", str(tmp_path / "artifacts"),
    )  # fmt: skip
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with process(tmp_path, shell, log, *command) as server:
        wait_for(f"{uri}/health", server, log)
        with tracked("encode", tmp_path) as tracker:
            assert not isinstance(tracker, NullTracker)
            tracker.metrics({"loss": 1.0})
            assert "sent later" not in caplog.text
            os.killpg(server.pid, signal.SIGKILL)
            server.wait(30)
            for step in range(1, 4):
                tracker.metrics({"loss": 0.5}, step=step)
            tracker.params({"a": 1})
            tracker.model("vqmri-vqvae", {})
    assert caplog.text.count("will be sent later") == 1


def test_a_resumed_training_goes_on_in_the_run_that_was_cut_off(
    tmp_path: Path, tracking_uri: str
) -> None:
    state = tmp_path / "state"
    for first, last in ((0, 3), (2, 5)):  # the second begins at the last checkpoint
        with suppress(KeyboardInterrupt), tracked("train_vqvae", tmp_path) as tracker:
            tracker.params({"train_vqvae": {"steps": 5}})
            tracker.resume(state)
            for step in range(first, last):
                tracker.metrics({"loss": 1 / (1 + step)}, step=step)
            if last == 3:
                raise KeyboardInterrupt
    (run,) = mlflow.search_runs(output_format="list")
    assert run.info.status == "FINISHED"
    history = mlflow.MlflowClient().get_metric_history(run.info.run_id, "loss")
    assert {point.step: point.value for point in history} == {s: 1 / (1 + s) for s in range(5)}


def test_a_run_that_the_server_no_longer_has_is_replaced(tmp_path: Path, tracking_uri: str) -> None:
    state = tmp_path / "state"
    state.mkdir()
    (state / "mlflow-run").write_text("0" * 32)
    with tracked("train_vqvae", tmp_path) as tracker:
        tracker.resume(state)
        tracker.metrics({"loss": 0.5}, step=1)
    (run,) = mlflow.search_runs(output_format="list")
    assert run.data.metrics == {"loss": 0.5}
    with tracked("train_vqvae", tmp_path) as tracker:
        tracker.resume(state)
        tracker.metrics({"loss": 0.25}, step=2)
    (again,) = mlflow.search_runs(output_format="list")
    assert (again.info.run_id, again.data.metrics) == (run.info.run_id, {"loss": 0.25})


def test_runs_begun_within_another_are_its_children(tmp_path: Path, tracking_uri: str) -> None:
    report = tmp_path / "report"
    report.mkdir()
    (report / "report.html").write_text("seen")
    state = tmp_path / "state"
    state.mkdir()
    with tracked("pipeline", tmp_path):
        with suppress(KeyboardInterrupt), tracked("train_vqvae", tmp_path) as tracker:
            tracker.resume(state)
            raise KeyboardInterrupt
        with tracked("train_vqvae", tmp_path) as tracker:  # takes up the run that was cut off
            tracker.resume(state)
        with tracked("evaluate", tmp_path) as tracker:
            tracker.artifacts(report)
    runs = {run.info.run_name: run for run in mlflow.search_runs(output_format="list")}
    assert set(runs) == {"pipeline", "train_vqvae", "evaluate"}
    parents = {name: run.data.tags.get("mlflow.parentRunId") for name, run in runs.items()}
    top = runs["pipeline"].info.run_id
    assert parents == {"pipeline": None, "train_vqvae": top, "evaluate": top}
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    kept = mlflow.artifacts.load_text(f"runs:/{runs['evaluate'].info.run_id}/report/report.html")
    assert kept == "seen"


def test_the_machines_load_is_kept_with_a_run(
    tmp_path: Path, tracking_uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_SYSTEM_METRICS_SAMPLING_INTERVAL", "0.1")
    with tracked("encode", tmp_path):
        time.sleep(1)
    (run,) = mlflow.search_runs(output_format="list")
    assert run.data.metrics["system/system_memory_usage_percentage"] > 0


def test_an_error_of_the_stage_is_not_taken_for_the_servers(
    tmp_path: Path, tracking_uri: str
) -> None:
    with pytest.raises(OSError, match="disk"), tracked("encode", tmp_path):
        raise OSError("disk full")


def test_a_registered_model_asks_for_all_that_its_code_imports() -> None:
    graph = grimp.build_graph("vqmri", include_external_packages=True)
    top = "vqmri.training.generator"
    closure = graph.find_upstream_modules(top)
    foreign = {m for m in closure if not m.startswith("vqmri")} - sys.stdlib_module_names
    assert "torch" in foreign
    assert foreign <= set(_NEEDED)
