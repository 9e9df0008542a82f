"""The pipeline when Prefect's server is away from the start, or dies before the pipeline ends."""

import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.doors import bytes_of, run
from tests.faults import Record, tell
from tests.servers import free_port, process, wait_for
from vqmri.layout import Layout

pytestmark = [pytest.mark.services, pytest.mark.faults, pytest.mark.timeout(900)]
COMMAND = ("python", "-m", "flows.pipeline")


@pytest.fixture
def port(shell: dict[str, str]) -> int:
    """Of the server that PREFECT_API_URL names from here on."""
    found = free_port()
    shell["PREFECT_API_URL"] = f"http://127.0.0.1:{found}/api"
    shell["PREFECT_CLIENT_MAX_RETRIES"] = "2"  # Prefect's own waits a minute for it to come back
    return found


def test_away_from_the_start_it_is_told_and_nothing_is_begun(
    checkout: Path, shell: dict[str, str], port: int, record_property: Record
) -> None:
    done = subprocess.run(
        COMMAND, cwd=checkout, env=shell, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 5
    assert "dvc repro" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (checkout / "data/volumes").exists()
    tell(record_property, "Prefect away from the start", 1, 1, "exit 5, nothing is begun")


@pytest.mark.long
@pytest.mark.parametrize(
    "stage",
    ["ingest", "encode", "evaluate"],
)  # fmt: skip
def test_when_it_dies_the_rest_runs_without_it_and_is_the_same(
    stage: str, checkout: Path, shell: dict[str, str], port: int, tmp_path: Path,
    finished: Layout, record_property: Record,
) -> None:  # fmt: skip
    """Killed when the stage has begun: in the middle of the pipeline, or at its end."""
    output = {"ingest": "volumes", "encode": "codes", "evaluate": "report"}[stage]
    log, said = tmp_path / "server.log", tmp_path / "pipeline.log"
    command = ("prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port))
    with process(checkout, shell, log, *command) as server:
        wait_for(f"{shell['PREFECT_API_URL']}/health", server, log)
        with process(checkout, shell, said, *COMMAND) as pipeline:
            while not any((checkout / "data/.work").glob(f"{output}-*")):
                assert pipeline.poll() is None, said.read_text()
                time.sleep(0.02)
            os.killpg(server.pid, signal.SIGKILL)
            assert pipeline.wait(400) == 0, said.read_text()[-5000:]
    assert "goes on without it" in said.read_text() or stage == "evaluate"
    assert run(checkout, shell, "dvc", "status", "--json").strip() == "{}"
    assert bytes_of(checkout) == bytes_of(finished.root)
    tell(record_property, "Prefect killed in mid-run", 1, 1, "the rest runs without it; same bytes")
