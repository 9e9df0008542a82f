"""The flow of `evaluate`: all outputs to figures and a report."""

from prefect import flow

from flows.stage import run_stage
from vqmri.protocols import Metrics


@flow(name="evaluate")
def evaluate() -> Metrics:
    """Run the stage on the project in the current folder; returns its metrics."""
    return run_stage("evaluate")
