"""sha256 of files that are looked at again and again, each read once."""

import os
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from types import TracebackType

from vqmri.outputs.manifest import sha256_of

UNREADABLE = "unreadable"
_SETTLED_NS = 2 * 10**9  # a file that changed less than this ago may change again within one tick


class FileDigests:
    """Remembers digests in a database; a file is read again when its size or its times differ.

    What git's index does: the database is a memory and no truth, and may be removed at any time.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._database = _opened(path)
        except sqlite3.DatabaseError:  # damaged
            path.unlink()
            self._database = _opened(path)

    def of(self, path: Path) -> str:
        """Hex sha256, or `UNREADABLE` for what is no file or cannot be read."""
        try:
            if not path.is_file():
                return UNREADABLE
            state = path.stat()
            trace = (state.st_size, state.st_mtime_ns, state.st_ctime_ns, state.st_ino)
            name = os.path.abspath(path)  # noqa: PTH100  (a link is known by its own name)
            row = self._database.execute(
                "select size, modified, changed, inode, sha256 from files where name = ?", (name,)
            ).fetchone()
            if row and row[:4] == trace:
                return str(row[4])
            digest = sha256_of(path)
        except OSError:
            return UNREADABLE
        if time.time_ns() - max(state.st_mtime_ns, state.st_ctime_ns) > _SETTLED_NS:
            self._database.execute(
                "insert or replace into files values (?, ?, ?, ?, ?, ?)", (name, *trace, digest)
            )
        return digest

    def __enter__(self) -> "FileDigests":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        with closing(self._database):
            self._database.commit()


def _opened(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, timeout=60)
    try:
        database.execute(
            "create table if not exists files (name text primary key, size integer, "
            "modified integer, changed integer, inode integer, sha256 text)"
        )
    except sqlite3.DatabaseError:
        database.close()
        raise
    return database
