"""The flow of `ingest`: raw scans to volumes."""

from prefect import flow

from flows.stage import run_stage, shards
from vqmri.protocols import Metrics


@flow(name="ingest", task_runner=shards(2))
def ingest() -> Metrics:
    """Run the stage on the project in the current folder; returns its metrics."""
    return run_stage("ingest")
