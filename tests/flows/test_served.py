"""`make serve`, and what a user does with its servers: deployments, pages, the registry."""

import json
import re
import socket
import subprocess
import time
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import nibabel
import numpy as np
import pytest
import yaml
from playwright.sync_api import Page, expect

from tests.browser import chromium
from tests.servers import free_port, process, wait_for
from vqmri.stages import STAGES

pytestmark = [pytest.mark.services, pytest.mark.timeout(1200)]


def run(checkout: Path, shell: dict[str, str], *command: str) -> str:
    done = subprocess.run(
        command, cwd=checkout, env=shell, capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-5000:]
    return done.stdout + done.stderr


def deployed(checkout: Path, shell: dict[str, str], name: str, **params: Any) -> None:
    """`prefect deployment run`, to its end."""
    given = [f"{key}={json.dumps(value)}" for key, value in params.items()]
    options = [part for pair in given for part in ("--param", pair)]
    said = run(checkout, shell, "prefect", "deployment", "run", name, *options, "--watch",
               "--watch-interval", "2")  # fmt: skip
    assert "Completed" in said, said


def ask(url: str, **body: Any) -> Any:
    request = Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urlopen(request, timeout=60) as answer:
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
    page.screenshot(path=picture, full_page=True)
    assert picture.stat().st_size > 10_000


def runs_of_pipeline(api: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = ask(
        f"{api}/flow_runs/filter", flows={"name": {"any_": ["pipeline"]}}, sort="START_TIME_ASC"
    )
    return found


def test_from_served_deployments_to_a_served_champion(
    checkout: Path, shell: dict[str, str], tmp_path: Path
) -> None:
    values = yaml.safe_load((checkout / "params.yaml").read_text())
    values["evaluate"]["gates"] = {"psnr_db": {"least": 0}}
    (checkout / "params.yaml").write_text(yaml.safe_dump(values, sort_keys=False))
    ports = {"PREFECT_PORT": str(free_port()), "MLFLOW_PORT": str(free_port())}
    log = tmp_path / "serve.log"
    with process(checkout, shell | ports, log, "python", "-m", "flows.serve") as served:
        shell = shell | exported(served, log)
        api, mlflow = shell["PREFECT_API_URL"], shell["MLFLOW_TRACKING_URI"]
        _pipeline(checkout, shell, api)
        _new_scans(checkout, shell, api)
        _pages(api, mlflow, tmp_path)
        assert "champion" in run(checkout, shell, "vqmri", "promote")
        _champion(checkout, shell, tmp_path)
    for port in ports.values():
        with pytest.raises(ConnectionRefusedError):  # nothing listens any more
            socket.create_connection(("127.0.0.1", int(port)), timeout=5)


def _pipeline(checkout: Path, shell: dict[str, str], api: str) -> None:
    deployed(checkout, shell, "pipeline/pipeline")
    assert json.loads((checkout / "data/metrics.json").read_text())["samples"] == 10
    assert run(checkout, shell, "dvc", "status", "--json").strip() == "{}"
    keys = {artifact["key"] for artifact in ask(f"{api}/artifacts/latest/filter", limit=100)}
    tables = {name.replace("_", "-") for name in STAGES}
    progress = {f"{name}-progress" for name in ("encode-shard", "sample-batch", "ingest-shard")}
    assert keys >= tables | progress | {"summary", "report"}

    asked = {"covariates": {"sex": "F", "age": 65}, "out": "elsewhere"}
    deployed(checkout, shell, "sample/sample", **asked)
    rows = (checkout / "elsewhere/participants.tsv").read_text().splitlines()
    assert rows[0].split("\t") == ["participant_id", "sex", "age"]
    assert {tuple(row.split("\t")[1:]) for row in rows[1:]} == {("F", "65")}


def _new_scans(checkout: Path, shell: dict[str, str], api: str) -> None:
    """What `watch` sees starts the pipeline, which finds nothing that it must do."""
    assert len(runs_of_pipeline(api)) == 1
    deployed(checkout, shell, "watch/watch")
    for _ in range(120):
        started = runs_of_pipeline(api)
        if len(started) == 2 and started[1]["state_type"] == "COMPLETED":
            break
        time.sleep(1)
    assert [one["state_type"] for one in started] == ["COMPLETED", "COMPLETED"]
    print(f"a flow over an unchanged pipeline: {started[1]['total_run_time']:.1f} s")


def _pages(api: str, mlflow: str, tmp_path: Path) -> None:
    (summary,) = ask(f"{api}/artifacts/latest/filter", artifacts={"key": {"any_": ["summary"]}})
    with urlopen(f"{mlflow}/api/2.0/mlflow/experiments/get-by-name?experiment_name=vqmri") as got:
        number = json.load(got)["experiment"]["experiment_id"]
    tracked = ask(f"{mlflow}/api/2.0/mlflow/runs/search", experiment_ids=[number])["runs"]
    of_evaluate = next(r["info"]["run_id"] for r in tracked if r["info"]["run_name"] == "evaluate")
    pages = api.removesuffix("/api")
    with chromium() as browser:
        page = browser.new_page(viewport={"width": 1400, "height": 1200})
        artifact = f"{pages}/artifacts/artifact/{summary['latest_id']}"
        look_at(page, artifact, ["psnr_db"], tmp_path / "prefect-summary.png")
        ran = f"{pages}/runs/flow-run/{runs_of_pipeline(api)[0]['id']}"
        look_at(page, ran, ["Completed"], tmp_path / "prefect-run.png")
        kept = f"{mlflow}/#/experiments/{number}/runs/{of_evaluate}"
        look_at(page, kept, ["evaluate", "psnr_db"], tmp_path / "mlflow-run.png")
        look_at(page, f"{kept}/artifacts", ["report"], tmp_path / "mlflow-artifacts.png")


def _champion(checkout: Path, shell: dict[str, str], tmp_path: Path) -> None:
    """Drawn by flow, by command and over HTTP it is the same scan."""
    champion = "models:/vqmri-generator@champion"
    settings = {"count": 2, "seed": 0, "temperature": 1.0}
    by_flow, by_command = tmp_path / "by-flow", tmp_path / "by-command"
    deployed(
        checkout, shell, "generate/generate", model=champion, settings=settings, out=str(by_flow)
    )
    run(tmp_path, shell, "vqmri", "generate", "--model", champion, "--count", "2", "--out",
        str(by_command))  # fmt: skip
    assert (by_flow / "MANIFEST.json").read_bytes() == (by_command / "MANIFEST.json").read_bytes()

    port, log = free_port(), tmp_path / "model.log"
    serve = ("mlflow", "models", "serve", "--model-uri", champion, "--env-manager", "local",
             "--host", "127.0.0.1", "--port", str(port))  # fmt: skip
    with process(tmp_path, shell, log, *serve) as server:
        wait_for(f"http://127.0.0.1:{port}/health", server, log)
        table = {"columns": ["seed", "number"], "data": [[0, 1]]}
        (scan,) = ask(f"http://127.0.0.1:{port}/invocations", dataframe_split=table)["predictions"]
    (image,) = by_command.glob("sub-synthetic00001/**/*.nii.gz")
    drawn = nibabel.load(image).get_fdata()
    assert np.abs(np.array(scan[0]) - drawn).max() < 1e-3
