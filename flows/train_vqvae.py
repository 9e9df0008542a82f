"""The flow of `train_vqvae`: volumes to a trained VQ-VAE."""

from prefect import flow

from flows.stage import run_stage
from vqmri.protocols import Metrics


@flow(name="train_vqvae")
def train_vqvae() -> Metrics:
    """Run the stage on the project in the current folder; returns its metrics."""
    return run_stage("train_vqvae")
