"""The pipeline calls nobody: every address that any of its processes looks for is on loopback.

Nothing tells it not to track, and its environment has nothing by which a package would know a CI
machine or a test, where it is silent anyway.
"""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import REPO
from tests.servers import free_port, process, wait_for

pytestmark = [pytest.mark.services, pytest.mark.timeout(600)]

_KEPT = ("HOME", "LANG", "OMP_NUM_THREADS", "PATH", "PREFECT_HOME", "PYTHONWARNINGS", "TMPDIR")
_LOOPBACK = re.compile(
    r"127(\.\d+){3}|::1|localhost|0\.0\.0\.0|::|"
)  # the last: any of this machine
PLANTED = """
import contextlib, socket
with contextlib.suppress(OSError):
    socket.getaddrinfo("telemetry.invalid", 443)
for send in (lambda s: s.connect(("192.0.2.7", 9)), lambda s: s.sendto(b"", ("192.0.2.8", 9))):
    with contextlib.suppress(OSError), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as planted:
        send(planted)
"""
"""Nobody has these addresses (RFC 5737) or that name (RFC 2606), and nothing is said to them."""

INGEST = "import pathlib; from vqmri.stages.run import run; run('ingest', pathlib.Path.cwd())"


@pytest.fixture
def watched(checkout: Path, shell: dict[str, str], tmp_path: Path) -> dict[str, str]:
    """A shell that nothing keeps silent, and whose Python processes are watched."""
    return {name: shell[name] for name in _KEPT if name in shell} | {
        "PYTHONPATH": f"{REPO / 'tests/hooks'}:{checkout}",
        "WATCHED": str(tmp_path / "seen.tsv"),
    }


def run(checkout: Path, shell: dict[str, str], *command: str) -> None:
    done = subprocess.run(
        command, cwd=checkout, env=shell, capture_output=True, text=True, check=False, timeout=500
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-5000:]


def seen(shell: dict[str, str]) -> list[tuple[str, str]]:
    """Event and host of every address; of a socket of this machine, its path."""
    found = []
    for line in Path(shell["WATCHED"]).read_text().splitlines():
        event, address = line.split("\t", 1)
        place = ast.literal_eval(address)
        host = place[0] if isinstance(place, tuple) else place
        text = host.decode(errors="replace") if isinstance(host, bytes) else str(host or "")
        found.append((event, text))
    return found


def foreign(shell: dict[str, str]) -> list[tuple[str, str]]:
    """Those that are not of this machine."""
    return [
        (event, host)
        for event, host in seen(shell)
        if not _LOOPBACK.fullmatch(host) and not host.startswith(("/", "\0"))
    ]


def test_the_pipeline_calls_nobody(checkout: Path, watched: dict[str, str]) -> None:
    run(checkout, watched, "python", "-m", "flows.pipeline")
    connected = [host for event, host in seen(watched) if event == "socket.connect"]
    assert "127.0.0.1" in connected, "Prefect's own server, on loopback"
    assert foreign(watched) == []
    for command in (
        ("vqmri", "ingest"),
        ("vqmri", "register"),
        ("vqmri", "doctor"),
        ("dvc", "repro"),
        ("prefect", "version"),
    ):
        run(checkout, watched, *command)
        assert foreign(watched) == [], command


def test_an_attempt_to_call_somebody_is_seen(checkout: Path, watched: dict[str, str]) -> None:
    within = f"import subprocess, sys\nsubprocess.run([sys.executable, '-c', {PLANTED!r}])"
    for source in (PLANTED, within):
        Path(watched["WATCHED"]).unlink(missing_ok=True)
        run(checkout, watched, "python", "-c", source)
        assert foreign(watched) == [
            ("socket.getaddrinfo", "telemetry.invalid"),
            ("socket.connect", "192.0.2.7"),
            ("socket.sendto", "192.0.2.8"),
        ]


def test_telemetry_would_be_seen(checkout: Path, watched: dict[str, str]) -> None:
    """MLflow's own, in a session that the library does not keep silent."""
    source = "mlflow.set_tracking_uri('sqlite:///a.db'); mlflow.start_run(); time.sleep(2)"
    run(checkout, watched, "python", "-c", f"import mlflow, time; {source}")
    assert "socket.getaddrinfo" in [event for event, _ in foreign(watched)]


def test_no_password_of_a_tracking_server_is_kept_or_told(
    checkout: Path, shell: dict[str, str], tmp_path: Path
) -> None:
    word = "Kestrel" + "4c1d"
    port, log, store = free_port(), tmp_path / "server.log", tmp_path / "store"
    store.mkdir()
    command = ("mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
               "--backend-store-uri", f"sqlite:///{store}/mlflow.db",
               "--artifacts-destination", str(store / "artifacts"))  # fmt: skip
    told = shell | {
        "MLFLOW_TRACKING_URI": f"http://somebody:{word}@127.0.0.1:{port}",
        "AWS_SECRET_ACCESS_KEY": word, "PREFECT_API_KEY": word,
    }  # fmt: skip
    with process(checkout, shell, log, *command) as server:
        wait_for(f"http://127.0.0.1:{port}/health", server, log)
        done = subprocess.run(
            [sys.executable, "-c", INGEST],
            cwd=checkout, env=told, capture_output=True, text=True, check=False, timeout=300,
        )  # fmt: skip
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert f"http://127.0.0.1:{port}/#/experiments" in said, "MLflow says where the run is"
    assert word not in said
    files = [path for path in tmp_path.rglob("*") if path.is_file() and ".git" not in path.parts]
    assert (store / "mlflow.db") in files
    assert [path for path in files if word.encode() in path.read_bytes()] == []
