"""A Dask scheduler with two workers, and the pipeline on them."""

from pathlib import Path

import pytest

from tests.documented import commands
from tests.doors import bytes_of, run
from tests.servers import free_port, process

pytestmark = [pytest.mark.services, pytest.mark.timeout(900)]


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
