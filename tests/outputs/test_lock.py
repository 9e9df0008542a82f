import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from vqmri.errors import LockedError
from vqmri.outputs.lock import hold

# Prints one line when it has the lock, or when it has not, and keeps it until its input closes.
HOLDER = """
import sys
from pathlib import Path
from vqmri.errors import LockedError
from vqmri.outputs.lock import hold
try:
    with hold(Path(sys.argv[1])):
        print("held", flush=True)
        sys.stdin.read()
except LockedError as error:
    print(error, flush=True)
    sys.exit(error.exit_code)
"""


@contextmanager
def holder(path: Path) -> Iterator[tuple["subprocess.Popen[str]", str]]:
    """Another process that tries to hold `path`, and the line that it prints."""
    command = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        try:
            yield process, process.stdout.readline()
        finally:
            process.kill()


def test_the_second_process_is_told_who_holds_it(tmp_path: Path) -> None:
    path = tmp_path / "work" / "volumes.lock"
    with holder(path) as (first, said):
        assert said == "held\n"
        with pytest.raises(LockedError, match=f"volumes .* process {first.pid} ") as caught:
            hold(path).__enter__()
        assert caught.value.exit_code == 6


def test_this_process_keeps_another_out(tmp_path: Path) -> None:
    path = tmp_path / "volumes.lock"
    with hold(path), holder(path) as (second, said):
        assert f"process {os.getpid()} " in said
        assert second.wait(30) == 6


def test_it_is_free_when_the_holder_is_killed(tmp_path: Path) -> None:
    path = tmp_path / "volumes.lock"
    with holder(path) as (first, _):
        first.kill()
        first.wait(30)
        with hold(path):
            # The text of the dead holder, longer or not, has gone.
            assert path.read_text().count("process") == 1
            assert f"process {os.getpid()} " in path.read_text()


def test_it_is_free_after_the_body_and_after_an_error(tmp_path: Path) -> None:
    path = tmp_path / "volumes.lock"
    with hold(path):
        pass
    with pytest.raises(KeyError), hold(path):
        raise KeyError
    with hold(path), pytest.raises(LockedError), hold(path):
        pass
    with hold(path):
        pass


def test_the_one_who_comes_second_does_not_free_it(tmp_path: Path) -> None:
    path = tmp_path / "volumes.lock"
    with hold(path):
        for _ in range(2):
            with pytest.raises(LockedError), hold(path):
                pass


def test_two_outputs_have_two_locks(tmp_path: Path) -> None:
    with hold(tmp_path / "codes.lock"), holder(tmp_path / "volumes.lock") as (_, said):
        assert said == "held\n"
