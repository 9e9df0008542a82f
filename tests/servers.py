"""Real servers on loopback for the time of a test."""

import os
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


@contextmanager
def process(
    folder: Path, shell: dict[str, str], log: Path, *command: str
) -> Iterator[subprocess.Popen[bytes]]:
    """A server for the time of the block; ended by its process group, whatever happens."""
    with log.open("wb") as file:
        child = subprocess.Popen(
            command, cwd=folder, env=shell, stdout=file, stderr=file, start_new_session=True
        )
    try:
        yield child
    finally:
        with suppress(ProcessLookupError):  # the test may have ended it
            os.killpg(child.pid, signal.SIGTERM)
        try:
            child.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(child.pid, signal.SIGKILL)
            child.wait(10)


def wait_for(url: str, child: subprocess.Popen[bytes], log: Path) -> None:
    for _ in range(240):
        assert child.poll() is None, log.read_text()
        try:
            with urlopen(url, timeout=5) as answer:
                if answer.status == 200:
                    return
        except (URLError, ConnectionError, TimeoutError):
            time.sleep(0.5)
    raise AssertionError(f"{url} does not answer: {log.read_text()[-3000:]}")
