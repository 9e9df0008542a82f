"""The flow of `sample`: models to synthetic scans."""

from pathlib import Path

from prefect import flow

from flows.stage import run_stage, shards
from vqmri.params import Sample
from vqmri.protocols import Metrics


@flow(name="sample", task_runner=shards(1))
def sample(settings: Sample | None = None, out: Path | None = None) -> Metrics:
    """Run the stage on the project in the current folder; returns its metrics.

    settings: in place of the section `sample` of params.yaml; only with `out`, a folder to write in
        place of data/samples
    """
    changes = settings.model_dump(mode="json") if settings else {}
    return run_stage("sample", changes=changes, out=out)
