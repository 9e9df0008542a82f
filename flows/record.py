"""What DVC knows of the stages: whether one must run, and that one has run."""

import logging
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from dvc.exceptions import DvcException
from dvc.lock import LockError
from dvc.repo import Repo

from vqmri.errors import IntegrityError, LockedError, VqmriError
from vqmri.params import PARAMS, Params

PATIENCE_S = 600.0
"""Seconds of waiting for another DVC command: what is not recorded is made again."""
_PAUSE_S = 2.0

log = logging.getLogger(__name__)
_Result = TypeVar("_Result")


def is_unchanged(stage: str) -> bool:
    """Whether deps, params and outputs of the stage are those of its last recorded run.

    Waits minutes for another DVC command, then LockedError; VqmriError for what else DVC refuses.
    """

    def ask() -> bool:
        with _dvc(f"ask whether {stage} must run", "run this command again") as repo:
            return not repo.status(targets=[stage])

    return _patiently(ask, f"whether {stage} must run is asked after it")


def record(stage: str, params: Params) -> None:
    """`dvc commit` of a stage that ran outside DVC with `params`.

    DVC would record whatever params.yaml says now, so IntegrityError if that is something else.
    Waits, and raises what DVC refuses, as `is_unchanged` does.
    """

    def commit() -> None:
        if Params.load(Path(PARAMS)) != params:
            raise IntegrityError(
                f"{PARAMS} was edited while {stage} ran, so its output is of the old values and is "
                "not recorded. Run the pipeline again."
            )
        with _dvc(f"record {stage}, which is published", f"run `dvc commit -f {stage}`") as repo:
            repo.commit(stage, force=True)

    _patiently(commit, f"{stage} is recorded after it")


def _patiently(act: Callable[[], _Result], what: str) -> _Result:
    """What `act` gives once no other DVC command is at work; `what` is told of the wait."""
    end, is_told = time.monotonic() + PATIENCE_S, False
    while True:
        try:
            return act()
        except LockedError:
            if time.monotonic() > end:
                raise
        if not is_told:
            log.warning("Another DVC command is at work; %s.", what)
        is_told = True
        time.sleep(_PAUSE_S)


@contextmanager
def _dvc(what: str, then: str) -> Iterator[Repo]:
    """The repository. What DVC refuses is told with what was asked of it, and what to do then."""
    try:
        with Repo() as repo:
            yield repo
    except LockError as error:
        raise LockedError(
            f"DVC cannot {what}: another DVC command is at work ({error}). Wait until it ends, "
            f"then {then}."
        ) from None
    except DvcException as error:
        raise VqmriError(f"DVC cannot {what}: {error}. Mend that, then {then}.") from error
