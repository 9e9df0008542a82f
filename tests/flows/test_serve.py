"""What `make serve` looks at before it starts a server; what it then serves is in test_served."""

import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from flows import serve
from tests.servers import free_port


@pytest.mark.parametrize("taken", serve._PORTS)
def test_no_flow_is_deployed_on_somebody_elses_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], taken: str
) -> None:
    def run(*command: Any, **options: Any) -> None:
        raise AssertionError(f"ran {command}")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(subprocess, "Popen", run)
    monkeypatch.setattr(subprocess, "run", run)
    for name in serve._PORTS:
        monkeypatch.setenv(name, str(free_port()))
    with socket.create_server((serve.HOST, 0)) as somebody:
        port = somebody.getsockname()[1]
        monkeypatch.setenv(taken, str(port))
        assert serve.main() == 1
    told = capsys.readouterr().err
    assert f"port {port} is in use; PREFECT_PORT and MLFLOW_PORT name others" in told
    assert not list(tmp_path.iterdir())
