import os
import time
from pathlib import Path

import pytest

from vqmri.outputs import digests as module
from vqmri.outputs import sha256_of
from vqmri.outputs.digests import UNREADABLE, FileDigests


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The files that were read."""
    found: list[Path] = []

    def noted(path: Path) -> str:
        found.append(path)
        return sha256_of(path)

    monkeypatch.setattr(module, "sha256_of", noted)
    return found


def settle(path: Path, ago: float = 60.0) -> None:
    """Make a file old enough to be remembered. Its change time cannot be set: that waits."""
    os.utime(path, (time.time() - ago,) * 2)
    time.sleep(max(0.0, 2.05 - (time.time() - path.stat().st_ctime)))


def digest(database: Path, path: Path) -> str:
    with FileDigests(database) as digests:
        return digests.of(path)


def test_a_file_that_has_not_changed_is_read_once(tmp_path: Path, read: list[Path]) -> None:
    file, database = tmp_path / "a", tmp_path / "new/memory.sqlite"
    file.write_bytes(b"one")
    settle(file)
    found = [digest(database, file) for _ in range(3)]
    assert found == [sha256_of(file)] * 3
    assert read == [file]


def test_a_file_of_the_same_size_and_time_is_read_again(tmp_path: Path, read: list[Path]) -> None:
    file, database = tmp_path / "a", tmp_path / "memory.sqlite"
    file.write_bytes(b"one")
    settle(file)
    before, state = digest(database, file), file.stat()
    file.write_bytes(b"two")
    os.utime(file, ns=(state.st_atime_ns, state.st_mtime_ns))  # its change time tells
    assert file.stat().st_mtime_ns == state.st_mtime_ns
    assert digest(database, file) != before
    assert len(read) == 2


def test_a_fresh_file_is_not_trusted(tmp_path: Path, read: list[Path]) -> None:
    """It may change again within one tick of the clock."""
    file, database = tmp_path / "a", tmp_path / "memory.sqlite"
    for content in (b"one", b"two"):
        file.write_bytes(content)
        assert digest(database, file) == sha256_of(file)
    assert len(read) == 2


def test_what_cannot_be_read_is_said_to_be_so(tmp_path: Path) -> None:
    database = tmp_path / "memory.sqlite"
    (tmp_path / "link").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe")
    for name in ("link", "pipe", "absent", "."):
        assert digest(database, tmp_path / name) == UNREADABLE


def test_a_damaged_database_is_begun_anew(tmp_path: Path) -> None:
    file, database = tmp_path / "a", tmp_path / "memory.sqlite"
    file.write_bytes(b"one")
    database.write_bytes(b"no database at all" * 100)
    assert digest(database, file) == sha256_of(file)
    assert digest(database, file) == sha256_of(file)
