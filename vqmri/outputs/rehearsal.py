"""A start that makes every check and stops where its work would begin; it writes nothing."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path

from vqmri.outputs.manifest import Identity


@dataclass
class Rehearsal:
    """What was found on the way. least: bytes that would be written at least; None: not known."""

    target: Path | None = None
    identity: Identity | None = None
    resumes: bool = False
    least: int | None = None


class Stopped(BaseException):
    """Here the work would begin. No `except Exception` on the way may take it for a fault."""


_now: ContextVar[Rehearsal | None] = ContextVar("_now", default=None)


@contextmanager
def rehearsing() -> Iterator[Rehearsal]:
    """Inside it every start is a rehearsal, and the first that would begin its work ends it."""
    rehearsal = Rehearsal()
    token = _now.set(rehearsal)
    try:
        yield rehearsal
    except Stopped:
        pass
    finally:
        _now.reset(token)


def rehearsed() -> Rehearsal | None:
    """The rehearsal that is on; None when all is meant."""
    return _now.get()


def begins(least: int | None = None) -> None:
    """Called by a stage when its checks are over, before its first write.

    least: bytes that it will write at least; None: not known
    Raises Stopped in a rehearsal.
    """
    rehearsal = rehearsed()
    if rehearsal is not None:
        rehearsal.least = least
        raise Stopped
