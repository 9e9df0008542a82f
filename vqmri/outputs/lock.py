"""One writer per output."""

import fcntl
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from vqmri.errors import LockedError
from vqmri.outputs.rehearsal import rehearsed


@contextmanager
def hold(path: Path) -> Iterator[None]:
    """Hold the operating system's lock on the file `path`, or raise LockedError at once.

    The kernel drops the lock when the process ends, however it ends, so a lock is never stale.
    The file names its holder for the message to the one who comes second. A rehearsal holds
    nothing, and is only told of another.
    """
    if rehearsed():
        _look(path)
        yield
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise _locked(path, file) from None
        file.truncate(0)
        file.write(f"process {os.getpid()} ({' '.join(sys.argv)[:200]})\n")
        file.flush()
        yield


def _look(path: Path) -> None:
    """LockedError when another process holds it; the file is not changed."""
    if not path.is_file():
        return
    with path.open(encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # dropped when the file is closed
        except BlockingIOError:
            raise _locked(path, file) from None


def _locked(path: Path, file: IO[str]) -> LockedError:
    file.seek(0)
    holder = file.read().strip() or "another process"
    return LockedError(
        f"{path.name.split('.')[0]} is being written by {holder}. "
        "Wait until it ends, or end it, then run this command again."
    )
