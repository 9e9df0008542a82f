"""The flow of `sample`: models to synthetic scans."""

from prefect import flow

from flows.stage import run_stage, threads
from vqmri.protocols import Metrics


@flow(name="sample", task_runner=threads(1))
def sample() -> Metrics:
    """Run the stage on the project in the current folder; returns its metrics."""
    return run_stage("sample")
