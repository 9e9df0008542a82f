"""How a flow runs a stage: shards as mapped tasks, metrics as an artifact."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from prefect import get_run_logger, task
from prefect.artifacts import create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.task_runners import ThreadPoolTaskRunner

from flows.record import record
from vqmri.params import PARAMS, Params
from vqmri.protocols import Metrics
from vqmri.stages.run import run


def threads(number: int) -> Any:
    """Task runner for shards: 1 where torch already uses every core within a shard."""
    return ThreadPoolTaskRunner(max_workers=number)


@task(cache_policy=NO_CACHE, persist_result=False)
def shard(function: Callable[[Any], Any], item: Any) -> Any:
    """One unit of work. It is the only writer of its shard, so shards may run side by side."""
    return function(item)


def each(function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
    """`map`, on the flow's task runner; results come in the order of the items."""
    submit = shard.with_options(task_run_name=function.__name__).submit
    futures = [submit(function, item) for item in items]
    return (future.result() for future in futures)


def run_stage(
    name: str, *, changes: Mapping[str, Any] | None = None, out: Path | None = None
) -> Metrics:
    """Run a stage on the project in the current folder, and let DVC know that it ran.

    changes, out: see `vqmri.stages.run`; DVC is told nothing of an output outside the project's own
    """
    logger = get_run_logger()
    params = Params.load(Path(PARAMS))
    metrics = run(name, Path.cwd(), each=each, changes=changes, out=out)
    if out is None:
        record(name, params)
    logger.info("%s: %s", name, ", ".join(f"{k} {v:.5g}" for k, v in sorted(metrics.items())))
    create_table_artifact(
        key=name.replace("_", "-"),
        table=[{"metric": key, "value": value} for key, value in sorted(metrics.items())],
        description=f"Metrics of {name}",
    )
    return metrics
