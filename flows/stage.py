"""How a flow runs a stage: shards as mapped tasks; progress, figures and pictures as artifacts."""

import errno
import logging
import os
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from httpx import HTTPError
from prefect import get_run_logger, task
from prefect.artifacts import (
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    create_table_artifact,
    update_progress_artifact,
)
from prefect.cache_policies import NO_CACHE
from prefect.settings import PREFECT_CLIENT_MAX_RETRIES, temporary_settings
from prefect.task_runners import ThreadPoolTaskRunner

from flows.record import record
from vqmri.errors import InterruptedRunError
from vqmri.layout import MADE_BY, Layout
from vqmri.params import PARAMS, Params
from vqmri.protocols import Metrics
from vqmri.stages.report import REPORT
from vqmri.stages.run import run

RUNNER = "VQMRI_TASK_RUNNER"
_MAY_PASS = (errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.EHOSTDOWN,
             errno.EHOSTUNREACH, errno.ENOTCONN)  # fmt: skip
_DEATHS = ("KilledWorker", "FutureCancelledError", "FuturesCancelledError")  # Dask is an extra
_PICTURE = "samples.png"  # of nobody; Prefect's server may be somebody else's

log = logging.getLogger(__name__)


def shards(threads: int) -> Any:
    """Task runner for shards: so many threads, or what a deployment names in VQMRI_TASK_RUNNER.

    threads: 1 where torch already uses every core within a shard

    The variable is `dask:N`, N single-threaded processes on this machine, or the address of a Dask
    scheduler, as tcp://10.0.0.7:8786, whose workers see the project under the same path.
    """
    asked = os.environ.get(RUNNER, "threads")
    if asked == "threads":
        return ThreadPoolTaskRunner(max_workers=threads)

    from prefect_dask.task_runners import DaskTaskRunner

    if not asked.startswith("dask:"):
        return DaskTaskRunner(address=asked)
    options = {"threads_per_worker": 1, "host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}
    return DaskTaskRunner(cluster_kwargs={"n_workers": int(asked.removeprefix("dask:")), **options})


def _may_pass(task: Any, task_run: Any, state: Any) -> bool:
    """Whether doing it again can help: a file server that was away, and not a scan that is bad."""
    fault = state.result(raise_on_failure=False)
    return isinstance(fault, OSError) and fault.errno in _MAY_PASS


@task(
    cache_policy=NO_CACHE,
    persist_result=False,
    retries=3,
    retry_delay_seconds=[2, 10, 60],
    retry_condition_fn=_may_pass,
)
def shard(function: Callable[[Any], Any], item: Any) -> Any:
    """One unit of work. It is the only writer of its shard, so shards may run side by side."""
    return function(item)


def each(function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
    """`map`, on the flow's task runner; results come in the order of the items."""
    name = function.__name__
    submit = shard.with_options(task_run_name=name).submit
    futures = [submit(function, item) for item in items]
    bar: Any = None
    with if_prefect_answers():
        bar = create_progress_artifact(0.0, key=f"{name.replace('_', '-')}-progress")
    for number, future in enumerate(futures, start=1):
        with said_plainly():
            result = future.result()
        yield result
        bar = _moved(bar, 100 * number / len(futures))


def _moved(bar: Any, percent: float) -> Any:
    """The bar on the run's page; None once it could not be shown, so that it is not tried again."""
    if bar is not None:
        with if_prefect_answers():
            update_progress_artifact(bar, percent)
            return bar
    return None


@contextmanager
def if_prefect_answers() -> Iterator[None]:
    """For what a run's page shows: no stage ends or waits because the server is away."""
    try:
        with temporary_settings({PREFECT_CLIENT_MAX_RETRIES: 0}):
            yield
    except HTTPError as error:
        log.warning("Prefect's server does not answer, and shows less of this run: %s", error)


@contextmanager
def said_plainly() -> Iterator[None]:
    """Turn what Dask raises when workers die into an InterruptedRunError."""
    try:
        yield
    except Exception as error:
        if type(error).__name__ not in _DEATHS:
            raise
        raise InterruptedRunError(
            f"Dask gave a shard up ({error}): its workers were ended, perhaps for want "
            "of memory, or the scheduler was. The same command goes on from here."
        ) from None


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
    with if_prefect_answers():
        create_table_artifact(
            key=name.replace("_", "-"),
            table=[{"metric": key, "value": value} for key, value in sorted(metrics.items())],
            description=f"Metrics of {name}",
        )
        if MADE_BY["report"] == name:
            _show_report(Layout(Path.cwd()).output("report"), metrics)
    return metrics


def _show_report(folder: Path, metrics: Metrics) -> None:
    """The report's main figures and samples on the run's page, and where the whole of it lies."""
    shown = ("psnr_db", "bits_per_voxel", "prior_bits_per_code", "frechet_ratio", "coverage_ratio",
             "mia_auc")  # fmt: skip
    rows = [f"| {name} | {metrics[name]:.4g} |" for name in shown if name in metrics]
    picture = b64encode((folder / _PICTURE).read_bytes()).decode()
    image = f"![{_PICTURE}](data:image/png;base64,{picture})"
    text = "\n".join(["| figure | |", "|---|---|", *rows, "", image])
    create_markdown_artifact(text, key="summary", description="Figures and samples")
    link = (folder / REPORT).resolve().as_uri()
    create_link_artifact(link, key="report", description="The report, on the worker's machine")
