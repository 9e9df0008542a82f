"""Run one stage of a project by its name, with params.yaml and MLflow: what every door does."""

import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from vqmri.errors import ParamsError
from vqmri.layout import OUTPUT_OF, Layout
from vqmri.outputs import hold
from vqmri.outputs.rehearsal import rehearsing
from vqmri.params import PARAMS, Params
from vqmri.protocols import Map, Metrics
from vqmri.stages import STAGES
from vqmri.stages.start import as_told


def run(
    name: str,
    root: Path,
    *,
    each: Map | None = None,
    changes: Mapping[str, Any] | None = None,
    out: Path | None = None,
) -> Metrics:
    """Run the stage on the project in `root`; its metrics go to MLflow too.

    each: on what the shards run; None for what the stage chooses
    changes: values of the stage's section in place of those in params.yaml; only with `out`, a
        folder to publish in place of the project's own, which is always that of params.yaml
    Raises ParamsError for `changes` without `out`, and what the stage raises; params.yaml is
    checked before anything heavy is imported.
    """
    params = _params(name, root, changes, out)
    with _alone(name, root) if out is None else nullcontext():
        return _run(name, root, params, each, out)


def rehearse(
    name: str, root: Path, *, changes: Mapping[str, Any] | None = None, out: Path | None = None
) -> dict[str, Any]:
    """What `run` would read and write: the stage is started, and stopped where it would begin.

    Nothing is written. Raises what `run` would raise for what can be known before.
    """
    params = _params(name, root, changes, out)
    with rehearsing() as start, _alone(name, root) if out is None else nullcontext():
        _stage(name, out)(params, Layout(root))
    return as_told(start, Layout(root), raw=params.ingest.raw)


def _params(name: str, root: Path, changes: Mapping[str, Any] | None, out: Path | None) -> Params:
    if changes and out is None:
        raise ParamsError(
            f"{', '.join(changes)}: the project's own output is that of {PARAMS}. Change the file, "
            "or name another folder with `--out`."
        )
    return Params.load(root / PARAMS, {name: dict(changes or {})})


def _alone(name: str, root: Path) -> AbstractContextManager[None]:
    """Held from before the heavy imports on, so that a second one is told in no time.

    `publishing` holds the output itself, whoever calls the stage. Of the processes that train
    together the first holds it for all.
    """
    if os.environ.get("RANK", "0") != "0":
        return nullcontext()
    return hold(Layout(root).work / f"{OUTPUT_OF[name]}.run.lock")


def _stage(name: str, out: Path | None) -> Callable[..., Metrics]:
    module, function = STAGES[name].split(":")
    stage: Callable[..., Metrics] = getattr(import_module(module), function)
    return stage if out is None else partial(stage, out=out)


def _told(name: str, params: Params, root: Path) -> dict[str, Any] | None:
    """The stage's section as MLflow may know it: of ingest what its output says, and no more."""
    section = getattr(params, name)
    if name == "ingest":
        from vqmri.build.ingest import recorded

        return recorded(section, root)
    return section.model_dump() if section else None


def _run(name: str, root: Path, params: Params, each: Map | None, out: Path | None) -> Metrics:
    stage = _stage(name, out)

    from vqmri.tracking.mlflow import tracked
    from vqmri.tracking.tracker import NullTracker
    from vqmri.training.device import is_leader
    from vqmri.training.memory import return_large_blocks

    return_large_blocks()
    with tracked(name, root) if is_leader() else nullcontext(NullTracker()) as tracker:
        tracker.params({"seed": params.seed, name: _told(name, params, root)})
        options = {"each": each} if each else {}
        metrics: Metrics = stage(params, Layout(root), tracker=tracker, **options)
        tracker.metrics(metrics)
    return metrics
