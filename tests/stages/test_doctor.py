"""What `vqmri doctor` finds, with real servers that are well, dead, or open to everybody."""

import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests.servers import free_port
from vqmri.cli import main
from vqmri.stages import doctor

GIB = 2**30


@pytest.fixture(autouse=True)
def _quiet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty folder, no servers, and no telemetry."""
    monkeypatch.chdir(tmp_path)
    for name in ("MLFLOW_TRACKING_URI", "PREFECT_API_URL", "MLFLOW_DISABLE_TELEMETRY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("DO_NOT_TRACK", "true")
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")


def examine() -> tuple[int, dict[str, dict[str, str]]]:
    done = CliRunner().invoke(main, ["doctor", "--json"])
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["fit"] == (done.exit_code == 0)
    return done.exit_code, {check["what"]: check for check in found["checks"]}


class Door(BaseHTTPRequestHandler):
    """Answers health to all, and the rest to all or to none; it may keep its health to itself."""

    is_open = True
    health = "/health"

    def do_GET(self) -> None:
        self.send_response(200 if self.is_open or self.path == self.health else 401)
        self.end_headers()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def serve(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Start a server bound to an address; returns its port."""
    started: list[ThreadingHTTPServer] = []

    def start(host: str, is_open: bool, health: str | None = "/health") -> int:
        door = type("Other", (Door,), {"is_open": is_open, "health": health})
        server = ThreadingHTTPServer((host, 0), door)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        started.append(server)
        return int(server.server_address[1])

    yield start
    for server in started:
        server.shutdown()
        server.server_close()


def test_a_healthy_machine_has_no_error() -> None:
    code, found = examine()
    assert code == 0
    assert set(found) == {
        "Python", "packages", "device", "disk", "telemetry", "MLFLOW_TRACKING_URI",
        "PREFECT_API_URL",
    }  # fmt: skip
    assert found["telemetry"]["verdict"] == "ok"
    text = CliRunner().invoke(main, ["doctor"]).stdout
    assert all(what in text for what in found)


def test_an_old_package_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "requires", lambda _: ["zarr>=99", "no-such-thing", "numpy>=1"])
    code, found = examine()
    assert code == 2
    assert found["packages"]["verdict"] == "error"
    assert "zarr>=99 (is 3" in found["packages"]["found"]
    assert "no-such-thing (is absent)" in found["packages"]["found"]
    assert "numpy" not in found["packages"]["found"]
    assert "constraints.txt" in found["packages"]["todo"]


@pytest.mark.parametrize(("extra", "what"), [(True, "-e '.[pipeline]'"), (False, "-e .")])
def test_the_remedy_installs_what_is_wrong(
    monkeypatch: pytest.MonkeyPatch, extra: bool, what: str
) -> None:
    monkeypatch.setattr(doctor, "requires", lambda _: ["zarr>=99"])
    monkeypatch.setattr(doctor, "find_spec", lambda name: extra or None)
    _, check = doctor._versions()
    assert check.todo == f"pip install -c constraints.txt {what}"


def test_a_disk_with_little_room_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(".")._replace(free=GIB)
    monkeypatch.setattr("shutil.disk_usage", lambda _: usage)
    code, found = examine()
    assert (code, found["disk"]["verdict"]) == (0, "warning")
    assert found["disk"]["found"].startswith("1.0 GiB free")


@pytest.mark.parametrize(
    ("settings", "spoken"),
    [
        ({}, ["Prefect", "MLflow", "DVC"]),
        ({"DO_NOT_TRACK": "1"}, ["MLflow", "DVC"]),  # MLflow wants the word
        ({"DO_NOT_TRACK": "true"}, ["DVC"]),
        ({"DO_NOT_TRACK": "1", "MLFLOW_DISABLE_TELEMETRY": "true"}, ["DVC"]),
    ],
)
def test_telemetry_that_is_on_is_named(
    settings: dict[str, str], spoken: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("DO_NOT_TRACK", "DVC_NO_ANALYTICS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    found = examine()[1]["telemetry"]
    assert found["verdict"] == "warning"
    assert [n for n in ("Prefect", "MLflow", "DVC") if n in found["found"]] == spoken


@pytest.mark.parametrize(("value", "is_off"), [("true", True), ("1", False)])
def test_mlflow_reads_the_variable_as_the_doctor_does(value: str, is_off: bool) -> None:
    """In a process of its own: in tests and on CI machines MLflow is silent anyway."""
    ask = "from mlflow.telemetry.utils import is_telemetry_disabled as off; print(off())"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", ask],
        env={"PATH": os.environ["PATH"], "DO_NOT_TRACK": value},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == str(is_off)


def test_a_server_that_does_not_answer_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{free_port()}/api")
    code, found = examine()
    assert code == 2
    assert "does not answer" in found["PREFECT_API_URL"]["found"]


@pytest.mark.parametrize(
    ("host", "is_open", "verdict"),
    [
        ("127.0.0.1", True, "ok"),  # nobody else can reach it
        ("0.0.0.0", True, "error"),
        ("0.0.0.0", False, "ok"),  # it asks who one is
    ],
)
@pytest.mark.parametrize(
    ("variable", "end"), [("MLFLOW_TRACKING_URI", ""), ("PREFECT_API_URL", "/api")]
)
def test_a_server_open_to_everybody_is_an_error(
    serve: Any, variable: str, end: str, host: str, is_open: bool, verdict: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    port = serve(host, is_open, f"{end}/health")
    monkeypatch.setenv(variable, f"http://127.0.0.1:{port}{end}")
    code, found = examine()
    assert found[variable]["verdict"] == verdict, found
    assert code == (2 if verdict == "error" else 0)
    if verdict == "error":
        assert "0.0.0.0" in found[variable]["found"]


@pytest.mark.parametrize("health", [None, "/there/health"])
@pytest.mark.parametrize("variable", ["MLFLOW_TRACKING_URI", "PREFECT_API_URL"])
def test_a_server_that_asks_everywhere_who_one_is_is_well(
    serve: Any, variable: str, health: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As MLflow's basic-auth app does; and a proxy may have it anywhere."""
    monkeypatch.setenv(variable, f"http://127.0.0.1:{serve('0.0.0.0', False, health)}/there/")
    code, found = examine()
    assert (code, found[variable]["verdict"]) == (0, "ok"), found
    assert found[variable]["found"].endswith("answers, and asks who you are")
