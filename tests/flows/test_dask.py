"""A Dask scheduler with two workers, and the pipeline on them."""

import subprocess
from pathlib import Path

import pytest

from tests.documented import commands
from tests.servers import free_port, process
from vqmri.layout import MADE_BY

pytestmark = [pytest.mark.services, pytest.mark.timeout(900)]


def run(checkout: Path, shell: dict[str, str], *command: str) -> str:
    done = subprocess.run(
        command, cwd=checkout, env=shell, capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-5000:]
    return done.stdout + done.stderr


def bytes_of(checkout: Path) -> dict[str, bytes]:
    return {name: (checkout / f"data/{name}/MANIFEST.json").read_bytes() for name in MADE_BY}


@pytest.mark.long
def test_the_pipeline_on_two_workers_gives_the_same_bytes(
    checkout: Path, shell: dict[str, str], tmp_path: Path
) -> None:
    port = str(free_port())
    scheduler, workers, pipeline = (
        [part.replace("8786", port) for part in command]
        for command in commands("docs/operation.md", "Dask")
    )
    log = tmp_path / "workers.log"
    with (
        process(checkout, shell, tmp_path / "scheduler.log", *scheduler),
        process(checkout, shell, log, *workers),
    ):
        said = run(checkout, shell, *pipeline)
    assert "Connecting to an existing Dask cluster" in said
    assert log.read_text().count("Registered to:") == 2
    by_dask = bytes_of(checkout)
    run(checkout, shell, "dvc", "repro", "--force", "--quiet")
    assert bytes_of(checkout) == by_dask
