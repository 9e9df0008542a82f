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
from vqmri.errors import INTERRUPTED, STORAGE, VqmriError
from vqmri.layout import Layout
from vqmri.params import PARAMS, Params
from vqmri.stages.report import REPORT
from vqmri.stages.run import run
from vqmri.tracking.mlflow import tracked

log = logging.getLogger(__name__)

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


def _is_of_prefect(error: Exception) -> bool:
    """Whether it is how Prefect says that its server is away: of a kind of its own only later."""
    return isinstance(error, HTTPError) or "Failed to reach API" in str(error)


def main() -> None:
    """Run the pipeline and say where its results lie."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: KeyboardInterrupt
    try:
        pipeline()
    except VqmriError as error:
        print(f"vqmri: {error}", file=sys.stderr)
        sys.exit(error.exit_code)
    except (HTTPError, RuntimeError) as error:
        if not _is_of_prefect(error):
            raise
        if not all(is_unchanged(stage.name) for stage in STAGE_FLOWS):
            print(f"vqmri: Prefect's server does not answer: {error}. Start it again, or unset "
                  "PREFECT_API_URL; `dvc repro` needs none. What was published is kept.",
                  file=sys.stderr)  # fmt: skip
            sys.exit(STORAGE)
        print("vqmri: all is made; Prefect's server does not answer, and does not know it",
              file=sys.stderr)  # fmt: skip
    except KeyboardInterrupt:
        print("vqmri: interrupted. The same command goes on from here.", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except OSError as error:
        print(f"vqmri: {error}. Nothing that was published is lost.", file=sys.stderr)
        sys.exit(STORAGE)
    data = Layout(Path.cwd())
    print(f"\nsynthetic scans  {data.output('samples')}")
    print(f"report           {data.output('report') / REPORT}")
    print(f"figures          {data.metrics}")


if __name__ == "__main__":
    logging.captureWarnings(True)
    main()
