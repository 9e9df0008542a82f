"""What DVC knows of the stages: whether one must run, and that one has run."""

from pathlib import Path

from dvc.repo import Repo

from vqmri.errors import IntegrityError
from vqmri.params import PARAMS, Params


def is_unchanged(stage: str) -> bool:
    """Whether deps, params and outputs of the stage are those of its last recorded run."""
    with Repo() as repo:
        return not repo.status(targets=[stage])


def record(stage: str, params: Params) -> None:
    """`dvc commit` of a stage that ran outside DVC with `params`.

    DVC would record whatever params.yaml says now, so IntegrityError if that is something else.
    """
    if Params.load(Path(PARAMS)) != params:
        raise IntegrityError(
            f"{PARAMS} was edited while {stage} ran, so its output is of the old values and is not "
            "recorded. Run the pipeline again."
        )
    with Repo() as repo:
        repo.commit(stage, force=True)
