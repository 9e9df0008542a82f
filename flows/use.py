"""The flow of `use`: samples and scans to how well nets that learnt from samples do."""

from prefect import flow

from flows.stage import run_stage, shards
from vqmri.protocols import Metrics


@flow(name="use", task_runner=shards(1))
def use() -> Metrics:
    """Run the stage on the project in the current folder; returns its metrics."""
    return run_stage("use")
