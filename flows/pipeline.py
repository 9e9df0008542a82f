"""All stages in the order of the data flow. A stage that DVC calls unchanged is skipped.

`python -m flows.pipeline` runs it here, on Prefect's temporary server if none is configured.
After it `dvc repro` has nothing to do, and after `dvc repro` it has nothing to do.
"""

import logging
import signal
from contextlib import ExitStack
from pathlib import Path

from prefect import flow, get_run_logger

from flows.encode import encode
from flows.evaluate import evaluate
from flows.ingest import ingest
from flows.record import is_unchanged
from flows.sample import sample
from flows.study import study
from flows.train_prior import train_prior
from flows.train_vqvae import train_vqvae
from flows.use import use
from vqmri.cli import faults_told
from vqmri.layout import Layout
from vqmri.stages.report import REPORT
from vqmri.tracking.mlflow import tracked

STAGE_FLOWS = (ingest, train_vqvae, encode, train_prior, sample, study, use, evaluate)


@flow(name="pipeline")
def pipeline() -> dict[str, str]:
    """Run what has changed; returns for each stage whether it "ran" or was "unchanged"."""
    logger = get_run_logger()
    done = {}
    with ExitStack() as tracking:
        for stage in STAGE_FLOWS:
            if is_unchanged(stage.name):
                logger.info("%s is unchanged", stage.name)
                done[stage.name] = "unchanged"
                continue
            if "ran" not in done.values():  # the parent of the runs of all stages that run
                tracking.enter_context(tracked("pipeline", Path.cwd()))
            stage()
            done[stage.name] = "ran"
    return done


def main() -> None:
    """Run the pipeline and say where its results lie."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: KeyboardInterrupt
    with faults_told():
        pipeline()
    data = Layout(Path.cwd())
    print(f"\nsynthetic scans  {data.output('samples')}")
    print(f"report           {data.output('report') / REPORT}")
    print(f"figures          {data.metrics}")


if __name__ == "__main__":
    logging.captureWarnings(True)
    main()
