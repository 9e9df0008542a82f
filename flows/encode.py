"""The flow of `encode`: volumes to codes."""

from prefect import flow

from flows.stage import run_stage, shards
from vqmri.protocols import Metrics


@flow(name="encode", task_runner=shards(1))
def encode() -> Metrics:
    """Run the stage on the project in the current folder; returns its metrics."""
    return run_stage("encode")
