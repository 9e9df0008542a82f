"""The flow of `study`: codes and models to a table of ways to choose codes."""

from prefect import flow

from flows.stage import run_stage, shards
from vqmri.protocols import Metrics


@flow(name="study", task_runner=shards(1))
def study() -> Metrics:
    """Run the stage on the project in the current folder; returns its metrics."""
    return run_stage("study")
