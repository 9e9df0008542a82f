"""sha256 of files that are looked at again and again, each read once."""

import os
import sqlite3
import stat
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from vqmri.outputs.manifest import sha256_of
from vqmri.outputs.rehearsal import rehearsed

UNREADABLE = "unreadable"
Trace = tuple[int, int, int, int]
"""Size, times of the last changes of content and of state in ns, inode."""

_TABLE = (
    "create table if not exists files (name blob primary key, size integer, modified integer, "
    "changed integer, inode integer, sha256 text)"
)
_SETTLED_NS = 2 * 10**9  # a file that changed less than this ago may change again within one tick


class FileDigests:
    """Remembers digests in a database; a file is read again when its size or its times differ.

    What git's index does: the database is a memory and no truth, and may be removed at any time.
    Where it cannot be used, files are read. A rehearsal asks it and tells it nothing.
    """

    def __init__(self, path: Path) -> None:
        if rehearsed():
            self._database = _read_only(path)
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        self._database = _opened(path)

    def of(self, path: Path) -> str:
        """Hex sha256, or `UNREADABLE` for what is no file or cannot be read."""
        return self.of_all([path])[0]

    def of_all(self, paths: Sequence[Path]) -> list[str]:
        """That of each; files that must be read are read side by side."""
        traces = {path: trace for path in paths if (trace := _trace(path))}
        found = {path: self._known(path, trace) for path, trace in traces.items()}
        unknown = [path for path, digest in found.items() if digest is None]
        with ThreadPoolExecutor() as pool:
            for path, digest in zip(unknown, pool.map(_read, unknown), strict=True):
                found[path] = digest
                self._remember(path, traces[path], digest)
        return [found.get(path) or UNREADABLE for path in paths]

    def _known(self, path: Path, trace: Trace) -> str | None:
        row = self._ask("select * from files where name = ?", _name(path))
        return str(row[5]) if row and row[1:5] == trace else None

    def _remember(self, path: Path, trace: Trace, digest: str | None) -> None:
        if digest and time.time_ns() - max(trace[1:3]) > _SETTLED_NS:
            self._ask("replace into files values (?, ?, ?, ?, ?, ?)", _name(path), *trace, digest)

    def _ask(self, statement: str, *values: object) -> tuple[Any, ...] | None:
        try:
            return self._database.execute(statement, values).fetchone()
        except sqlite3.Error:  # damaged, or in another process's hands for too long
            return None

    def __enter__(self) -> "FileDigests":
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()


def _name(path: Path) -> bytes:
    return os.fsencode(os.path.abspath(path))  # noqa: PTH100  (a link has a name of its own)


def _trace(path: Path) -> Trace | None:
    """What changes when a file does; None for what is no file."""
    try:
        state = path.stat()
    except OSError:
        return None
    if not stat.S_ISREG(state.st_mode):
        return None
    return state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino


def _read(path: Path) -> str | None:
    try:
        return sha256_of(path)
    except OSError:
        return None


def _read_only(path: Path) -> sqlite3.Connection:
    """Without the files that SQLite would make beside it; what it cannot tell is asked in vain."""
    if not path.is_file():
        return sqlite3.connect(":memory:", isolation_level=None)
    address = f"{path.absolute().as_uri()}?mode=ro&immutable=1"
    return sqlite3.connect(address, uri=True, isolation_level=None)


def _opened(path: Path) -> sqlite3.Connection:
    """The database, begun anew if it is none; in memory if another process keeps it busy."""
    for _ in range(2):
        # without transactions each row counts at once
        database = sqlite3.connect(path, timeout=10, isolation_level=None)
        try:
            database.execute("pragma journal_mode = wal")
            database.execute("pragma synchronous = normal")
            database.execute(_TABLE)
            database.execute("select count(*) from files").fetchone()
        except sqlite3.OperationalError:
            database.close()
            break
        except sqlite3.DatabaseError:
            database.close()
            path.unlink(missing_ok=True)
        else:
            return database
    database = sqlite3.connect(":memory:", isolation_level=None)
    database.execute(_TABLE)
    return database
