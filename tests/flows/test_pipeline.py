"""The pipeline flow on Prefect's temporary server, beside DVC."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.conftest import REPO
from tests.doors import bytes_of, run
from vqmri.layout import Layout
from vqmri.stages import STAGES

pytestmark = [pytest.mark.services, pytest.mark.timeout(900)]
FAMILY = """
import mlflow
mlflow.set_tracking_uri("sqlite:///mlruns/mlflow.db")
runs = mlflow.search_runs(experiment_names=["vqmri"], output_format="list")
(top,) = (run for run in runs if "mlflow.parentRunId" not in run.data.tags)
below = [run for run in runs if run.data.tags.get("mlflow.parentRunId") == top.info.run_id]
print(top.info.run_name, *sorted(run.info.run_name for run in below))
"""


def test_the_flow_makes_what_the_stages_make_and_dvc_knows(
    checkout: Path, shell: dict[str, str], finished: Layout
) -> None:
    """That `dvc repro` makes the same bytes as well is in tests/test_dvc.py."""
    run(checkout, shell, "python", "-m", "flows.pipeline")
    by_flow = bytes_of(checkout)
    assert by_flow == bytes_of(finished.root)
    assert run(checkout, shell, "python", "-c", FAMILY).split() == ["pipeline", *sorted(STAGES)]
    assert run(checkout, shell, "dvc", "status", "--json").strip() == "{}"
    assert "up to date" in run(checkout, shell, "dvc", "repro")

    again = run(checkout, shell, "python", "-m", "flows.pipeline")
    assert re.findall(r"(\w+) is unchanged", again) == list(STAGES)
    assert bytes_of(checkout) == by_flow


@pytest.mark.long
def test_a_fault_in_params_ends_the_flow_with_its_exit_code(
    checkout: Path, shell: dict[str, str]
) -> None:
    text = (checkout / "params.yaml").read_text()
    (checkout / "params.yaml").write_text(text.replace("temperature: 1.0", "temperature: 0"))
    done = subprocess.run(
        ["python", "-m", "flows.pipeline"],
        cwd=checkout, env=shell, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip
    assert done.returncode == 2
    assert "sample.temperature = 0" in done.stderr
    assert not (checkout / "data/volumes").exists()


def test_there_is_a_deployment_for_every_flow() -> None:
    deployments = yaml.safe_load((REPO / "prefect.yaml").read_text())["deployments"]
    names = [*STAGES, "pipeline", "generate", "watch"]
    on_dask = ["ingest", "encode", "sample"]
    assert [(d["name"], d["entrypoint"]) for d in deployments] == [
        *((name.replace("_", "-"), f"flows/{name}.py:{name}") for name in names),
        *((f"{name}-dask", f"flows/{name}.py:{name}") for name in on_dask),
    ]
