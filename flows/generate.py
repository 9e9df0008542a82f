"""The flow of `vqmri generate`: a registered model to synthetic scans."""

from pathlib import Path

from prefect import flow

from flows.stage import each, shards
from vqmri.params import Sample
from vqmri.protocols import Metrics


@flow(name="generate", task_runner=shards(1))
def generate(model: str, settings: Sample, out: Path) -> Metrics:
    """Draw synthetic scans; no project is needed.

    model: as models:/vqmri-generator@champion, in the registry of MLFLOW_TRACKING_URI
    settings: as the section `sample` of params.yaml
    out: folder to write
    """
    from vqmri.stages.generate import generate as from_model

    return from_model(model, settings, out, Path.cwd(), each=each)
