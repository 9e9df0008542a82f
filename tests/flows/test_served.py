"""`make serve`, and what a user does with its servers: deployments, pages, the registry."""

import json
import re
import socket
import subprocess
import time
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import nibabel
import numpy as np
import pytest
import yaml
from playwright.sync_api import Page, expect

from tests.browser import chromium
from tests.documented import commands
from tests.doors import bytes_of, run
from tests.servers import free_port, process, wait_for
from vqmri.layout import Layout
from vqmri.stages import STAGES

pytestmark = [pytest.mark.services, pytest.mark.timeout(1200)]
RUN = ("prefect", "deployment", "run")


def typed(*begin: str) -> list[str]:
    """The one command of the docs' page on Prefect that begins so."""
    told = commands("docs/prefect.md", "Prefect")
    (command,) = (c for c in told if c[: len(begin)] == list(begin))
    return command


def deployed(checkout: Path, shell: dict[str, str], command: list[str]) -> None:
    """`prefect deployment run`, to its end."""
    said = run(checkout, shell, *command, "--watch", "--watch-interval", "2")
    assert "Completed" in said, said


def ask(url: str, **body: Any) -> Any:
    request = Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urlopen(request, timeout=60) as answer:
        return json.load(answer)


def ask_for(url: str) -> Any:
    with urlopen(url, timeout=60) as answer:
        return json.load(answer)


def exported(served: subprocess.Popen[bytes], log: Path) -> dict[str, str]:
    """The variables that `make serve` says to export, once it does."""
    for _ in range(600):
        if found := re.search(r"export (.+)", log.read_text()):
            return dict(pair.split("=", 1) for pair in found[1].split())
        assert served.poll() is None, log.read_text()[-3000:]
        time.sleep(0.5)
    raise AssertionError(log.read_text()[-3000:])


def look_at(page: Page, url: str, texts: list[str], picture: Path) -> None:
    page.goto(url)
    for text in texts:
        expect(page.get_by_text(text).first).to_be_visible(timeout=60_000)
    page.wait_for_timeout(1000)  # pages fade in
    page.screenshot(path=picture, full_page=True)
    assert picture.stat().st_size > 10_000


def runs_of_pipeline(api: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = ask(
        f"{api}/flow_runs/filter", flows={"name": {"any_": ["pipeline"]}}, sort="START_TIME_ASC"
    )
    return found


def test_from_served_deployments_to_a_served_champion(
    checkout: Path, shell: dict[str, str], finished: Layout, tmp_path: Path
) -> None:
    values = yaml.safe_load((checkout / "params.yaml").read_text())
    values["evaluate"]["gates"] = {"psnr_db": {"least": 0}}
    (checkout / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    ports = {"PREFECT_PORT": str(free_port()), "MLFLOW_PORT": str(free_port())}
    log = tmp_path / "serve.log"
    with process(checkout, shell | ports, log, "python", "-m", "flows.serve") as served:
        shell = shell | exported(served, log)
        api, mlflow = shell["PREFECT_API_URL"], shell["MLFLOW_TRACKING_URI"]
        run(checkout, shell, *typed("prefect", "work-pool"))
        run(checkout, shell, *typed("prefect", "--no-prompt", "deploy"))
        worker = typed("prefect", "worker", "start")
        with process(checkout, shell, tmp_path / "worker.log", *worker):  # beside serve's own
            _pipeline(checkout, shell, api, finished)
        _new_scans(checkout, shell, api)
        _pages(api, mlflow, tmp_path)
        assert "champion" in run(checkout, shell, "vqmri", "promote")
        _champion(checkout, shell, tmp_path)
    for port in ports.values():
        with pytest.raises(ConnectionRefusedError):  # nothing listens any more
            socket.create_connection(("127.0.0.1", int(port)), timeout=5)


def _pipeline(checkout: Path, shell: dict[str, str], api: str, finished: Layout) -> None:
    deployed(checkout, shell, typed(*RUN, "pipeline/pipeline"))
    assert json.loads((checkout / "data/metrics.json").read_text())["samples"] == 10
    assert run(checkout, shell, "dvc", "status", "--json").strip() == "{}"
    keys = {artifact["key"] for artifact in ask(f"{api}/artifacts/latest/filter", limit=100)}
    tables = {name.replace("_", "-") for name in STAGES}
    progress = {f"{name}-progress" for name in ("encode-shard", "sample-batch", "ingest-shard")}
    assert keys >= tables | progress | {"summary", "report"}

    deployed(checkout, shell, typed(*RUN, "sample/sample"))
    rows = (checkout / "elsewhere/participants.tsv").read_text().splitlines()
    assert rows[0].split("\t") == ["participant_id", "sex", "age"]
    assert [tuple(row.split("\t")[1:]) for row in rows[1:]] == [("F", "65")] * 8

    made, expected = (
        bytes_of(checkout),
        bytes_of(finished.root),
    )  # of the same params, but for gates
    assert {k: v for k, v in made.items() if k not in ("report", "metrics")} == {
        k: v for k, v in expected.items() if k not in ("report", "metrics")
    }

    form = ask_for(f"{api}/deployments/name/sample/sample")["parameter_openapi_schema"]
    fields = form["definitions"]["Sample"]["properties"]
    assert fields["count"]["type"] == "integer"
    assert all(field["description"] for field in fields.values())


def _new_scans(checkout: Path, shell: dict[str, str], api: str) -> None:
    """What `watch` sees starts the pipeline, which finds nothing that it must do."""
    assert len(runs_of_pipeline(api)) == 1
    assert "0:15:00" in run(checkout, shell, *typed("prefect", "deployment", "schedule"))
    deployed(checkout, shell, [*RUN, "watch/watch"])
    started = _completed(api, 2)
    run(checkout, shell, *typed("prefect", "event", "emit"))
    _completed(api, 3)
    asked, ended = (datetime.fromisoformat(started[1][key]) for key in ("created", "end_time"))
    seconds = (ended - asked).total_seconds()
    print(f"a flow over an unchanged pipeline: {seconds:.1f} s from the event to its end")


def _completed(api: str, count: int) -> list[dict[str, Any]]:
    """So many runs of the pipeline, once the last one has ended well."""
    for _ in range(120):
        started = runs_of_pipeline(api)
        if len(started) == count and started[-1]["state_type"] == "COMPLETED":
            break
        time.sleep(1)
    assert [one["state_type"] for one in started] == ["COMPLETED"] * count
    return started


def _pages(api: str, mlflow: str, tmp_path: Path) -> None:
    (summary,) = ask(f"{api}/artifacts/latest/filter", artifacts={"key": {"any_": ["summary"]}})
    by_name = f"{mlflow}/api/2.0/mlflow/experiments/get-by-name?experiment_name=vqmri"
    number = ask_for(by_name)["experiment"]["experiment_id"]
    tracked = ask(f"{mlflow}/api/2.0/mlflow/runs/search", experiment_ids=[number])["runs"]
    of_evaluate = next(r["info"]["run_id"] for r in tracked if r["info"]["run_name"] == "evaluate")
    pages = api.removesuffix("/api")
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1400, "height": 1200})
        artifact = f"{pages}/artifacts/artifact/{summary['latest_id']}"
        look_at(page, artifact, ["psnr_db"], tmp_path / "prefect-summary.png")
        ran = f"{pages}/runs/flow-run/{runs_of_pipeline(api)[0]['id']}"
        look_at(page, ran, ["Completed", "Finished in state"], tmp_path / "prefect-run.png")
        kept = f"{mlflow}/#/experiments/{number}/runs/{of_evaluate}"
        look_at(page, kept, ["evaluate", "psnr_db"], tmp_path / "mlflow-run.png")
        look_at(page, f"{kept}/artifacts", ["report"], tmp_path / "mlflow-artifacts.png")


def _champion(checkout: Path, shell: dict[str, str], tmp_path: Path) -> None:
    """Drawn by flow, by command and over HTTP it is the same scan."""
    deployed(checkout, shell, typed(*RUN, "generate/generate"))
    told = commands("docs/operation.md", "In operation")
    (generate,) = (c for c in told if c[:2] == ["vqmri", "generate"])
    by_command = tmp_path / "DIR"
    run(tmp_path, shell, *generate)
    assert (checkout / "scans/MANIFEST.json").read_bytes() == (
        by_command / "MANIFEST.json"
    ).read_bytes()

    log = tmp_path / "model.log"
    (serve,) = commands("docs/mlflow.md", "MLflow")
    port = str(free_port())
    with process(tmp_path, shell, log, *serve[:-1], port) as server:
        wait_for(f"http://127.0.0.1:{port}/health", server, log)
        table = {"columns": ["seed", "number"], "data": [[0, 1]]}
        (scan,) = ask(f"http://127.0.0.1:{port}/invocations", dataframe_split=table)["predictions"]
    (image,) = by_command.glob("sub-synthetic00001/**/*.nii.gz")
    drawn = nibabel.load(image).get_fdata()
    assert np.abs(np.array(scan[0]) - drawn).max() < 1e-3
