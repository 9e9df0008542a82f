"""`make serve`: Prefect's server with a worker, and MLflow's, on loopback, until Ctrl-C."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

HOST = "127.0.0.1"
POOL = "vqmri"
_START_S, _END_S = 180, 15


def main() -> int:
    """Start all, deploy the flows, wait; exit code 0 after Ctrl-C, 1 if a server ends by itself.

    Also 1, and nothing is begun, if a port is in use.
    """
    prefect_port, mlflow_port = (int(os.environ.get(n, d)) for n, d in _PORTS.items())
    prefect, mlflow = f"http://{HOST}:{prefect_port}", f"http://{HOST}:{mlflow_port}"
    shell = os.environ | {
        "PREFECT_API_URL": f"{prefect}/api",
        "MLFLOW_TRACKING_URI": mlflow,
        "DO_NOT_TRACK": "true",
        "MLFLOW_DISABLE_TELEMETRY": "true",
    }
    store = ("--backend-store-uri", "sqlite:///mlruns/mlflow.db",
             "--artifacts-destination", "mlruns/artifacts")  # fmt: skip
    for port in (prefect_port, mlflow_port):
        if not _is_free(port):
            print(f"vqmri: port {port} is in use; PREFECT_PORT and MLFLOW_PORT name others",
                  file=sys.stderr)  # fmt: skip
            return 1
    Path("mlruns").mkdir(exist_ok=True)
    signal.signal(signal.SIGTERM, _interrupt)
    servers: list[subprocess.Popen[bytes]] = []

    def start(*command: str) -> None:
        servers.append(subprocess.Popen(command, env=shell, start_new_session=True))

    with _ended(servers):
        try:
            start("prefect", "server", "start", "--host", HOST, "--port", str(prefect_port))
            start("mlflow", "server", "--host", HOST, "--port", str(mlflow_port), "--workers", "1",
                  *store)  # fmt: skip
            for url in (f"{prefect}/api/health", f"{mlflow}/health"):
                _wait_for(url, servers)
            pool = ("prefect", "work-pool", "create", "--type", "process", "--overwrite", POOL)
            for command in (pool, ("prefect", "--no-prompt", "deploy", "--all")):
                subprocess.run(command, env=shell, check=True, stdout=subprocess.DEVNULL)
            start("prefect", "worker", "start", "--pool", POOL)
            print(f"\nPrefect  {prefect}\nMLflow   {mlflow}\n\nIn another shell:\n"
                  f"  export PREFECT_API_URL={prefect}/api MLFLOW_TRACKING_URI={mlflow}\n"
                  "  prefect deployment run pipeline/pipeline\n", flush=True)  # fmt: skip
            while all(server.poll() is None for server in servers):
                time.sleep(1)
        except KeyboardInterrupt:
            return 0
    print("vqmri: a server ended; so did the others", file=sys.stderr)
    return 1


_PORTS: Mapping[str, int] = {"PREFECT_PORT": 4200, "MLFLOW_PORT": 5000}


def _is_free(port: int) -> bool:
    """Whether nobody listens there; else the flows would be deployed on somebody's server."""
    try:
        socket.create_server((HOST, port)).close()
    except OSError:
        return False
    return True


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


@contextmanager
def _ended(started: list[subprocess.Popen[bytes]]) -> Iterator[None]:
    """After the block what was started, and its children, are asked to end, then made to."""
    try:
        yield
    finally:
        for child in started:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGTERM)
        end = time.monotonic() + _END_S
        for child in started:
            try:
                child.wait(max(0.1, end - time.monotonic()))
            except subprocess.TimeoutExpired:
                with suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)
                child.wait()


def _wait_for(url: str, servers: list[subprocess.Popen[bytes]]) -> None:
    end = time.monotonic() + _START_S
    while time.monotonic() < end:
        if any(server.poll() is not None for server in servers):
            break
        try:
            with urlopen(url, timeout=5):
                return
        except (URLError, OSError):
            time.sleep(0.5)
    print(f"vqmri: {url} does not answer; what its server said stands above. Mend that, then "
          "run `make serve` again", file=sys.stderr)  # fmt: skip
    raise SystemExit(1)


if __name__ == "__main__":
    sys.exit(main())
