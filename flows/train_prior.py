"""The flow of `train_prior`: codes to a trained prior."""

from prefect import flow

from flows.stage import run_stage
from vqmri.protocols import Metrics


@flow(name="train_prior")
def train_prior() -> Metrics:
    """Run the stage on the project in the current folder; returns its metrics."""
    return run_stage("train_prior")
