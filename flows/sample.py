"""The flow of `sample`: models to synthetic scans."""

from pathlib import Path
from typing import Any

from prefect import flow

from flows.stage import run_stage, shards
from vqmri.protocols import Metrics


@flow(name="sample", task_runner=shards(1))
def sample(covariates: dict[str, Any] | None = None, out: Path | None = None) -> Metrics:
    """Run the stage on the project in the current folder; returns its metrics.

    covariates: of the synthetic subjects, in place of those in params.yaml; only with `out`, a
        folder to write in place of data/samples
    """
    return run_stage("sample", changes={"covariates": covariates} if covariates else {}, out=out)
