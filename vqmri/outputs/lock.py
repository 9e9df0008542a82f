"""One writer per output."""

import fcntl
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vqmri.errors import LockedError


@contextmanager
def hold(path: Path) -> Iterator[None]:
    """Hold the operating system's lock on the file `path`, or raise LockedError at once.

    The kernel drops the lock when the process ends, however it ends, so a lock is never stale.
    The file names its holder for the message to the one who comes second.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            holder = file.read().strip() or "another process"
            raise LockedError(
                f"{path.name.split('.')[0]} is being written by {holder}. "
                "Wait until it ends, or end it, then run this command again."
            ) from None
        file.truncate(0)
        file.write(f"process {os.getpid()} ({' '.join(sys.argv)[:200]})\n")
        file.flush()
        yield
