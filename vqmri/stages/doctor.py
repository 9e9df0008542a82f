"""Is this machine, and what it talks to, fit to run the pipeline?"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.client import HTTPException
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from pathlib import Path
from typing import Literal
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import urlopen

import psutil
from packaging.requirements import Requirement

from vqmri.layout import Layout
from vqmri.tracking.address import shown

_GIB = 2**30
_LEAST_FREE = 2 * _GIB
_LOOPBACK = ("127.", "::1", "localhost")
_SERVERS = {
    "MLFLOW_TRACKING_URI": "/api/2.0/mlflow/experiments/search?max_results=1",
    "PREFECT_API_URL": "/admin/settings",
}
"""What only those who may use the server should be answered."""
_ASKS = (401, 403)  # of a server that wants to know who one is, perhaps of its health too
_TIMEOUT_S = 5


@dataclass(frozen=True)
class Check:
    """What was looked at, what was found, and what to do about it ("" when it is well)."""

    verdict: Literal["ok", "warning", "error"]
    what: str
    found: str
    todo: str = ""


def doctor(data: Layout) -> list[Check]:
    """Look at everything; nothing is changed."""
    looks: list[Callable[[], Iterator[Check]]] = [
        _versions, _device, lambda: _disk(data), _telemetry, _servers,
    ]  # fmt: skip
    return [check for look in looks for check in look()]


def _versions() -> Iterator[Check]:
    python = ".".join(map(str, sys.version_info[:3]))
    yield Check("ok", "Python", python)  # pip installs on no older one than it should
    wrong = []
    extra = "pipeline" if find_spec("dvc") or find_spec("prefect") else ""
    for requirement in map(Requirement, requires("vqmri") or []):
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        try:
            installed = version(requirement.name)
        except PackageNotFoundError:
            installed = "absent"
        if installed == "absent" or installed not in requirement.specifier:
            wrong.append(f"{requirement} (is {installed})")
    if wrong:
        todo = "pip install -c constraints.txt -e " + (f"'.[{extra}]'" if extra else ".")
        yield Check("error", "packages", ", ".join(wrong), todo)
    else:
        yield Check("ok", "packages", "all as pyproject.toml asks")


def _device() -> Iterator[Check]:
    import torch

    if torch.cuda.is_available():
        free, total = torch.cuda.mem_get_info()
        name = torch.cuda.get_device_name()
        memory = f"{free / _GIB:.1f} of {total / _GIB:.1f} GiB free"
        yield Check("ok", "device", f"{name}, {memory}, torch {torch.__version__}")
        return
    threads = torch.get_num_threads()
    free = psutil.virtual_memory().available
    found = f"no GPU; {threads} threads, {free / _GIB:.1f} GiB free, torch {torch.__version__}"
    gpu = shutil.which("nvidia-smi") is not None
    todo = "this PyTorch does not see the GPU: install one built for its driver" if gpu else ""
    yield Check("warning" if gpu else "ok", "device", found, todo)


def _disk(data: Layout) -> Iterator[Check]:
    free = shutil.disk_usage(data.root).free
    held = sum(
        file.stat().st_size
        for name in ("data", "mlruns")
        for file in (data.root / name).rglob("*")
        if file.is_file() and not file.is_symlink()
    )
    found = f"{free / _GIB:.1f} GiB free; data/ and mlruns/ hold {held / _GIB:.1f}"
    if free < max(_LEAST_FREE, held):
        # a stage holds its new output beside the old one until it is whole
        yield Check(
            "warning", "disk", found, "make room, or move the project: a run writes as much"
        )
    else:
        yield Check("ok", "disk", found)


def _telemetry() -> Iterator[Check]:
    """Of the `prefect`, `mlflow` and `dvc` commands of this shell: on unless they are told."""
    asked = os.environ.get("DO_NOT_TRACK", "").lower()
    config = Path("prefect.toml")
    quiet = {
        "Prefect (DO_NOT_TRACK=true)": asked in ("1", "true", "yes")
        or (config.is_file() and "analytics_enabled = false" in config.read_text("utf-8")),
        # it wants the word, and not the 1
        "MLflow (MLFLOW_DISABLE_TELEMETRY=true)": asked == "true"
        or os.environ.get("MLFLOW_DISABLE_TELEMETRY", "").lower() in ("1", "true"),
        "DVC (dvc config core.analytics false)": bool(os.environ.get("DVC_NO_ANALYTICS"))
        or _dvc_is_told(),
    }
    if all(quiet.values()):
        yield Check("ok", "telemetry", "off in Prefect, MLflow and DVC")
        return
    spoken = ", ".join(name for name, is_quiet in quiet.items() if not is_quiet)
    todo = "export DO_NOT_TRACK=true DVC_NO_ANALYTICS=1"
    yield Check("warning", "telemetry", f"on in commands of this shell: {spoken}", todo)


def _dvc_is_told() -> bool:
    if not find_spec("dvc"):
        return True
    asked = subprocess.run(
        [sys.executable, "-m", "dvc", "config", "core.analytics"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return asked.stdout.strip() == "false"


def _servers() -> Iterator[Check]:
    for variable, private in _SERVERS.items():
        address = os.environ.get(variable, "")
        if not address.startswith("http"):
            where = shown(address) or "none: a local store is used"
            yield Check("ok", variable, where)
            continue
        # urlopen would ask the name servers for a host called user:password@host
        base = shown(address).rstrip("/")
        answered = _status(f"{base}/health")
        if answered != 200 and answered not in _ASKS:
            found = f"{base} does not answer" if answered is None else f"{base} says {answered}"
            todo = f"start the server, or unset {variable}; what runs track is kept until then"
            yield Check("error", variable, found, todo)
        else:
            yield _exposure(variable, base, base + private)


def _exposure(variable: str, base: str, private: str) -> Check:
    """A server that others can reach and that asks nobody who they are is an error."""
    bound = _bound(base)
    reachable = [place for place in bound if not place.startswith(_LOOPBACK)]
    answered = _status(private)
    if reachable and answered == 200:
        return Check(
            "error", variable, f"{base} listens on {', '.join(reachable)} and lets anyone in",
            "start it with --host 127.0.0.1, or with authentication (docs/operation.md)",
        )  # fmt: skip
    asks = ", and asks who you are" if answered in _ASKS else ""
    return Check("ok", variable, f"{base} answers{asks}")


def _bound(base: str) -> list[str]:
    """Addresses that a server of this machine listens on; of another machine, its name."""
    parts = urlsplit(base)
    host = parts.hostname or ""
    if not host.startswith(_LOOPBACK):
        return [host]
    port = parts.port or (443 if parts.scheme == "https" else 80)
    listening = (
        socket for socket in psutil.net_connections("tcp") if socket.status == psutil.CONN_LISTEN
    )
    addresses = (socket.laddr for socket in listening if socket.laddr)
    return sorted({address.ip for address in addresses if address.port == port})


def _status(url: str) -> int | None:
    """Of the answer to a request without credentials; None: nobody answers."""
    try:
        with urlopen(url, timeout=_TIMEOUT_S) as answer:
            return int(answer.status)
    except HTTPError as error:
        return error.code
    except (URLError, OSError, ValueError, HTTPException):
        return None


COLUMNS = ("", "what", "found")


def rows(checks: list[Check]) -> list[tuple[str, str, str]]:
    """Of a table for a person; what to do stands below what was found."""
    return [
        (check.verdict, check.what, check.found + (f"\n→ {check.todo}" if check.todo else ""))
        for check in checks
    ]
