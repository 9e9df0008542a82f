"""All stages in the order of the data flow. A stage that DVC calls unchanged is skipped.

`python -m flows.pipeline` runs it here, on Prefect's temporary server if none is configured.
After it `dvc repro` has nothing to do, and after `dvc repro` it has nothing to do.
"""

import logging
import signal
import sys
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from httpx import HTTPError
from prefect import flow, get_run_logger

from flows.encode import encode
from flows.evaluate import evaluate
from flows.ingest import ingest
from flows.record import is_unchanged, record
from flows.sample import sample
from flows.study import study
from flows.train_prior import train_prior
from flows.train_vqvae import train_vqvae
from flows.use import use
from vqmri.cli.group import faults_told
from vqmri.errors import STORAGE, VqmriError
from vqmri.layout import Layout
from vqmri.params import PARAMS, Params
from vqmri.stages.report import REPORT
from vqmri.stages.run import run
from vqmri.tracking.mlflow import tracked

log = logging.getLogger(__name__)


class ServerError(VqmriError):
    """A server that was asked for does not answer; nothing was begun without it."""

    exit_code = STORAGE


STAGE_FLOWS = (ingest, train_vqvae, encode, train_prior, sample, study, use, evaluate)


@flow(name="pipeline")
def pipeline() -> dict[str, str]:
    """Run what has changed; returns for each stage whether it "ran" or was "unchanged".

    When Prefect's server goes away in the middle the rest runs without it.
    """
    logger = get_run_logger()
    done: dict[str, str] = {}
    served = True
    with ExitStack() as tracking:
        for stage in STAGE_FLOWS:
            if is_unchanged(stage.name):
                logger.info("%s is unchanged", stage.name)
                done[stage.name] = "unchanged"
                continue
            if "ran" not in done.values():  # the parent of the runs of all stages that run
                tracking.enter_context(tracked("pipeline", Path.cwd()))
            if served:
                served = _runs_with_prefect(stage)
            if not served and not is_unchanged(stage.name):
                _run_without_prefect(stage.name)
            done[stage.name] = "ran"
    return done


def _runs_with_prefect(stage: Callable[[], object]) -> bool:
    """Run a stage's flow; False when the server went away, be it before, in or after the stage."""
    try:
        stage()
    except HTTPError as error:
        log.warning("Prefect's server does not answer; the pipeline goes on without it: %s", error)
        return False
    return True


def _run_without_prefect(name: str) -> None:
    params = Params.load(Path(PARAMS))
    run(name, Path.cwd())
    record(name, params)


def _end_without_prefect(error: Exception) -> None:
    """Raise what ended the pipeline, unless all is made and only Prefect's server was not told."""
    # Of a server that is away from the start Prefect says so by no kind of its own.
    if not (isinstance(error, HTTPError) or "Failed to reach API" in str(error)):
        raise error
    if not all(is_unchanged(stage.name) for stage in STAGE_FLOWS):
        raise ServerError(
            f"Prefect's server does not answer: {error}. Start it again, or unset PREFECT_API_URL; "
            "`dvc repro` needs none. What was published is kept."
        ) from None
    print("vqmri: all is made; Prefect's server does not answer and does not know", file=sys.stderr)


def main() -> None:
    """Run the pipeline and say where its results lie."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: KeyboardInterrupt
    with faults_told():
        try:
            pipeline()
        except (HTTPError, RuntimeError) as error:
            _end_without_prefect(error)
    data = Layout(Path.cwd())
    print(f"\nsynthetic scans  {data.output('samples')}")
    print(f"report           {data.output('report') / REPORT}")
    print(f"figures          {data.metrics}")


if __name__ == "__main__":
    logging.captureWarnings(True)
    main()
