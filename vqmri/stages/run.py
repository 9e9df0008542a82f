"""Run one stage of a project by its name, with params.yaml and MLflow: what every door does."""

from importlib import import_module
from pathlib import Path

from vqmri.layout import Layout
from vqmri.params import PARAMS, Params
from vqmri.protocols import Map, Metrics
from vqmri.stages import STAGES


def run(name: str, root: Path, *, each: Map = map) -> Metrics:
    """Run the stage on the project in `root`; its metrics go to MLflow too.

    Raises VqmriError, with params.yaml checked before anything heavy is imported.
    """
    params = Params.load(root / PARAMS)
    module, function = STAGES[name].split(":")
    stage = getattr(import_module(module), function)

    from vqmri.tracking.mlflow import tracked

    with tracked(name, root) as tracker:
        tracker.params({"seed": params.seed, name: getattr(params, name).model_dump()})
        metrics: Metrics = stage(params, Layout(root), tracker=tracker, each=each)
        tracker.metrics(metrics)
    return metrics
