"""sha256 of files that are looked at again and again, each read once."""

import os
import sqlite3
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from vqmri.outputs.manifest import sha256_of

UNREADABLE = "unreadable"
_TABLE = (
    "create table if not exists files (name blob primary key, size integer, modified integer, "
    "changed integer, inode integer, sha256 text)"
)
_SETTLED_NS = 2 * 10**9  # a file that changed less than this ago may change again within one tick


class FileDigests:
    """Remembers digests in a database; a file is read again when its size or its times differ.

    What git's index does: the database is a memory and no truth, and may be removed at any time.
    Where it cannot be used, files are read.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._database = _opened(path)

    def of(self, path: Path) -> str:
        """Hex sha256, or `UNREADABLE` for what is no file or cannot be read."""
        try:
            if not path.is_file():
                return UNREADABLE
            state = path.stat()
            trace = (state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino)
            name = os.fsencode(os.path.abspath(path))  # noqa: PTH100  (a link has its own name)
            known = self._ask("select * from files where name = ?", name)
            if known and known[1:5] == trace:
                return str(known[5])
            digest = sha256_of(path)
        except OSError:
            return UNREADABLE
        if time.time_ns() - max(state.st_mtime_ns, state.st_ctime_ns) > _SETTLED_NS:
            self._ask(
                "insert or replace into files values (?, ?, ?, ?, ?, ?)", name, *trace, digest
            )
        return digest

    def _ask(self, statement: str, *values: object) -> tuple[Any, ...] | None:
        try:
            found: tuple[Any, ...] | None = self._database.execute(statement, values).fetchone()
        except sqlite3.Error:  # damaged, or in another process's hands for too long
            return None
        return found

    def __enter__(self) -> "FileDigests":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._database.close()


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
