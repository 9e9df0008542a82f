"""What a run wants remembered, written down in the project before any of it is sent.

One file per run, mlruns/spool/TIME-ID.jsonl, with an event in each line, the first of which is the
run's start. A file beside it, *.sent, says how far it has been sent, and to which run.
"""

import fcntl
import json
import logging
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, Any
from uuid import uuid4

from vqmri.outputs import replace_file

Event = dict[str, Any]

log = logging.getLogger(__name__)


def now() -> int:
    """Milliseconds since 1970, as MLflow counts."""
    return time.time_ns() // 1_000_000


class Spool:
    """The events of one run, locked for this process; the kernel drops the lock when it ends.

    start: the event that the file begins with
    run: id of the run that the events go to, once it is known
    is_left: whether the process that wrote it has ended
    """

    def __init__(self, path: Path, file: IO[bytes], start: Event) -> None:
        self.path, self.start = path, start
        self._file, self._write = file, threading.Lock()
        self._progress = path.with_suffix(".sent")
        self.is_left = False
        self.run: str | None = None
        self._sent = 0
        with suppress(OSError, ValueError):
            self.run, self._sent = json.loads(self._progress.read_text(encoding="utf-8"))

    @classmethod
    def begin(cls, folder: Path, start: Mapping[str, Any]) -> "Spool":
        """A new file with its first event; it has its name once it is locked and not before."""
        folder.mkdir(parents=True, exist_ok=True)
        event = {"event": "start", "id": uuid4().hex, "time": now(), **start}
        path = folder / f"{time.time_ns()}-{event['id']}.jsonl"
        unnamed = path.with_suffix(".new")
        file = unnamed.open("xb")
        fcntl.flock(file, fcntl.LOCK_EX)
        file.write(json.dumps(event).encode() + b"\n")
        file.flush()
        unnamed.replace(path)
        return cls(path, file, event)

    @classmethod
    def left_over(cls, path: Path) -> "Spool | None":
        """That of a process that has ended; None when it has not, or all of it is sent by now.

        Also None for one that cannot be read, as another user's: the others are sent all the same.
        """
        with suppress(OSError, ValueError), ExitStack() as unless_kept:
            file = unless_kept.enter_context(path.open("r+b"))
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if path.exists():
                spool = cls(path, file, json.loads(file.readline()))
                spool.is_left = True
                unless_kept.pop_all()
                return spool
        return None

    def append(self, event: Event) -> None:
        """Write an event down. What no disk takes is lost, with a warning, and so is the rest."""
        with self._write:
            if self._file.closed:
                return
            try:
                self._file.write(json.dumps(event).encode() + b"\n")
                self._file.flush()
            except OSError as error:
                log.warning("From here on this run is not tracked: %s", error)
                self.close()

    def unsent(self) -> Iterator[tuple[Event, int]]:
        """Each whole event that is not marked as sent, with the place where it ends."""
        with self.path.open("rb") as file:
            place = file.seek(self._sent)
            lines = file.readlines()
        for line in lines:
            place += len(line)
            with suppress(ValueError):  # the process, or the machine, died in writing it
                yield json.loads(line), place

    def mark(self, place: int) -> None:
        """Remember that all before `place` has been sent to `run`."""
        self._sent = place
        replace_file(self._progress, json.dumps([self.run, place]).encode())

    def remove(self) -> None:
        self._progress.unlink(missing_ok=True)
        self.path.unlink(missing_ok=True)  # before the lock goes
        self.close()

    def close(self) -> None:
        with suppress(OSError):
            self._file.close()
