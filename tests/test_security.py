"""Nobody in: no code is read as data, servers listen on loopback, and no secret is told.

What is forbidden is looked for in the source, and the search is shown to find it.
"""

import ast
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest
import yaml
from click.testing import CliRunner

from flows import serve
from tests.conftest import REPO, tiny_values
from tests.servers import free_port
from tests.test_repository import TRACKED
from vqmri.cli import main
from vqmri.tracking.address import PASSWORD, URI, USER, part_from_credentials, shown

SOURCES = [
    path
    for path in TRACKED
    if path.suffix == ".py" and path.relative_to(REPO).parts[0] in ("vqmri", "flows", "benchmarks")
]

# What runs what it reads

_MODULES = {"pickle", "_pickle", "cPickle", "cloudpickle", "dill", "joblib", "shelve", "marshal"}
_CALLS = {
    "eval", "exec", "compile", "__import__", "os.system", "os.popen", "subprocess.getoutput",
    "subprocess.getstatusoutput", "pandas.read_pickle", "runpy.run_path", "runpy.run_module",
    "torch.hub.load", "torch.jit.load", "torch.package.PackageImporter", "code.interact",
    "yaml.load", "yaml.load_all", "yaml.full_load", "yaml.full_load_all", "yaml.unsafe_load",
    "yaml.unsafe_load_all", "yaml.Loader", "yaml.FullLoader", "yaml.UnsafeLoader",
}  # fmt: skip


def _names(tree: ast.AST) -> dict[str, str]:
    """Name in the file to what it was imported as."""
    found = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for name in node.names:
                root = name.name.split(".")[0]
                found[name.asname or root] = name.name if name.asname else root
        elif isinstance(node, ast.ImportFrom):
            found |= {n.asname or n.name: f"{node.module or ''}.{n.name}" for n in node.names}
    return found


def _dotted(node: ast.AST, names: Mapping[str, str]) -> str:
    """The name of what is called, with every import written out."""
    if isinstance(node, ast.Name):
        return names.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value, names)}.{node.attr}"
    return ""


def _is(node: ast.AST | None, value: object) -> bool:
    return isinstance(node, ast.Constant) and node.value is value


def _fault(call: ast.Call, name: str) -> str:
    """What is wrong with a call, or ""."""
    given = {keyword.arg: keyword.value for keyword in call.keywords}
    if name in _CALLS:
        return name
    if name == "torch.load" and not _is(given.get("weights_only"), True):
        return "torch.load without weights_only=True"
    if not _is(given.get("allow_pickle", ast.Constant(False)), False):
        return "allow_pickle"
    if name == "numpy.load" and len(call.args) > 2:
        return "allow_pickle by its place"
    if name.startswith("subprocess.") and not _is(given.get("shell", ast.Constant(False)), False):
        return "shell=True"
    if name.endswith((".extractall", ".extract")) and "filter" not in given:
        return "an archive unpacked without a filter"
    if name.startswith("mlflow.") and name.endswith("load_model"):
        return "a model whose code is run"
    if name.endswith("import_module") and call.args and isinstance(call.args[0], ast.Constant):
        return str(call.args[0].value) if call.args[0].value in _MODULES else ""
    return ""


def faults(source: str) -> list[str]:
    """Everything in a file that can run what it reads."""
    tree = ast.parse(source)
    names = _names(tree)
    imported = {name.split(".")[0] for name in names.values()}
    found = sorted(imported & _MODULES)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and (fault := _fault(node, _dotted(node.func, names))):
            found.append(fault)
        elif isinstance(node, ast.Attribute | ast.Name):
            name = _dotted(node, names)
            found += [name] if name in _CALLS and "." in name else []
    return found


@pytest.mark.parametrize(
    "source",
    [
        *(f"import {name}" for name in sorted(_MODULES)),
        "from pickle import loads",
        "import pickle as data",
        "import joblib.memory",
        "def f():\n    from dill import load",
        "from importlib import import_module\nimport_module('pickle')",
        "__import__('pickle')",
        "import torch\ntorch.load(path)",
        "import torch as t\nt.load(path, weights_only=False)",
        "from torch import load\nload(path, 'cpu')",
        "import torch\nload = torch.hub.load('a', 'b')",
        "import torch\ntorch.load(path, weights_only=asked)",
        "import numpy as np\nnp.load(path, allow_pickle=True)",
        "import numpy as np\nnp.load(path, None, True)",
        "from numpy import load\nload(path, allow_pickle=asked)",
        "import pandas as pd\npd.read_pickle(path)",
        "import yaml\nyaml.load(text, Loader=yaml.SafeLoader)",
        "import yaml\nyaml.unsafe_load(text)",
        "from yaml import full_load\nfull_load(text)",
        "import yaml\nclass Mine(yaml.UnsafeLoader): pass",
        "from yaml import Loader\nLoader(text)",
        "eval(text)",
        "def f(text):\n    exec(text)",
        "exec(compile(text, 'a', 'exec'))",
        "import subprocess\nsubprocess.run(text, shell=True)",
        "from subprocess import Popen\nPopen(text, shell=asked)",
        "import subprocess\nsubprocess.getoutput(text)",
        "import os\nos.system(text)",
        "from os import popen as run\nrun(text)",
        "import tarfile\ntarfile.open(path).extractall(folder)",
        "with opened as archive:\n    archive.extract(name)",
        "import mlflow\nmlflow.pyfunc.load_model(uri)",
        "from mlflow import pyfunc\npyfunc.load_model(uri)",
    ],
)
def test_what_runs_what_it_reads_is_found(source: str) -> None:
    assert faults(source)


@pytest.mark.parametrize(
    "source",
    [
        "model.eval()",
        "import re\nre.compile('a')",
        "import torch\ntorch.load(path, weights_only=True)",
        "import numpy as np\nnp.load(path)\nnp.load(path, allow_pickle=False)",
        "import yaml\nyaml.safe_load(text)\nyaml.SafeLoader(text)",
        "import subprocess\nsubprocess.run(['a'], shell=False)",
        "import tarfile\ntarfile.open(path).extractall(folder, filter='data')",
        "from importlib import import_module\nimport_module(name)",
        "from vqmri.training.model_folder import load_model\nload_model(folder)",
    ],
)
def test_what_reads_alone_is_not(source: str) -> None:
    assert faults(source) == []


def test_no_module_runs_what_it_reads() -> None:
    assert len(SOURCES) > 150
    found = {str(path): faults(path.read_text(encoding="utf-8")) for path in SOURCES}
    assert {path: fault for path, fault in found.items() if fault} == {}


# Servers

_STARTS = re.compile(
    r"\b(?:prefect server start|mlflow (?:server|ui|models serve)|dask (?:scheduler|worker)"
    r"|python3? -m http\.server|moto_server|tensorboard|jupyter[ -]\w+|uvicorn|gunicorn)\s+[-\w]"
)
_EVERYWHERE = re.compile(r"(?<![\d.])0\.0\.0\.0(?![\d.])|--host[= ]+(?:::|\*|\"\")|\[::\]")
_FENCED = re.compile(r"^```\w*\n(.*?)^```", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`([^`\n]+)`")


def commands(text: str) -> list[str]:
    """Every line of a fenced block, joined where a backslash says so, and what is in backticks."""
    blocks = [block.replace("\\\n", " ") for block in _FENCED.findall(text)]
    return [line for block in blocks for line in block.splitlines()] + _INLINE.findall(
        _FENCED.sub("", text)
    )


def open_to_others(text: str) -> list[str]:
    """Commands that start a server and do not say that it listens on loopback."""
    return [
        command
        for command in commands(text)
        if _EVERYWHERE.search(command) or (_STARTS.search(command) and "127.0.0.1" not in command)
    ]


@pytest.mark.parametrize(
    "text",
    [
        "```\nmlflow server --host 0.0.0.0\n```",
        "```bash\nmlflow server --port 5000\n```",
        "```\nprefect server start --port 4200\n```",
        "```\nenv A=b mlflow models serve \\\n  --model-uri models:/a/1\n```",
        "```\ndask scheduler --port 8786\n```",
        "Type `mlflow ui --port 1` and look.",
        "Type `python -m http.server 8000`.",
        "It listens on `0.0.0.0`.",
    ],
)
def test_a_server_open_to_others_is_found(text: str) -> None:
    assert open_to_others(text)


def test_every_server_of_the_docs_listens_on_loopback() -> None:
    documents = [p for p in TRACKED if p.suffix == ".md" and p.name not in ("LOG.md",)]
    assert sum(len(re.findall(_STARTS, p.read_text("utf-8"))) for p in documents) >= 3
    found = {str(path): open_to_others(path.read_text(encoding="utf-8")) for path in documents}
    assert {path: text for path, text in found.items() if text} == {}


def test_no_code_or_setting_listens_everywhere() -> None:
    kinds = {".py", ".toml", ".yaml", ""}
    files = [p for p in TRACKED if p.suffix in kinds and not p.is_relative_to(REPO / "tests")]
    assert [p for p in files if _EVERYWHERE.search(p.read_text(encoding="utf-8"))] == []


class _Stop(Exception):
    pass


def test_make_serve_starts_every_server_on_loopback(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[list[str]] = []

    class Recorded:
        def __init__(self, command: list[str], **_: Any) -> None:
            started.append([*command])

        def poll(self) -> None:
            return None

    def stop(*_: object) -> None:
        raise _Stop

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("flows.serve.subprocess.Popen", Recorded)
    monkeypatch.setattr("flows.serve.signal.signal", lambda *_: None)
    monkeypatch.setattr(serve, "_wait_for", stop)
    monkeypatch.setattr(serve, "_ended", lambda _: nullcontext())
    with pytest.raises(_Stop):
        serve.main()
    assert [command[0] for command in started] == ["prefect", "mlflow"]
    for command in started:
        assert command[command.index("--host") + 1] == "127.0.0.1"


def test_packages_are_audited_apart_from_what_runs_without_the_network() -> None:
    makefile = (REPO / "Makefile").read_text()
    assert re.search(r"^audit:.*\n(?:\t.*\n)*\t.*pip-audit", makefile, re.MULTILINE)
    assert "audit" not in re.findall(r"^check:.*", makefile, re.MULTILINE)[0]
    assert "audit" not in (REPO / ".ci/run").read_text()


# Secrets


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("http://user:word@127.0.0.1:5000/a", "http://127.0.0.1:5000/a"),
        ("at https://word@host failed", "at https://host failed"),
        ("postgresql+psycopg://u:w%40rd@host/db", "postgresql+psycopg://host/db"),
        ("http://u:w@rd@host/", "http://host/"),
        ("postgresql://host/db?user=u&password=word", "postgresql://host/db?user=u&password=***"),
        ("http://host?api_key=word&a=b", "http://host?api_key=***&a=b"),
        ("models:/vqmri-generator@champion", "models:/vqmri-generator@champion"),
        ("http://host/models/a@champion", "http://host/models/a@champion"),
        ("sqlite:///mlruns/mlflow.db", "sqlite:///mlruns/mlflow.db"),
    ],
)
def test_an_address_is_told_without_its_password(text: str, told: str) -> None:
    assert shown(text) == told
    assert shown(OSError(text)) == told


def test_credentials_of_a_tracking_server_go_where_mlflow_tells_nobody() -> None:
    there = {URI: "https://us%40er:w%3Ard@host:5000/path"}
    part_from_credentials(there)
    assert there == {URI: "https://host:5000/path", USER: "us@er", PASSWORD: "w:rd"}
    part_from_credentials(there)
    assert there[PASSWORD] == "w:rd"
    for uri in ("http://host", "sqlite:///a@b", "postgresql://u:w@host/db", ""):
        others = {URI: uri}
        part_from_credentials(others)
        assert others == {URI: uri}


@pytest.mark.parametrize("place", ["[::1", "a\u2100b"])
def test_an_address_that_is_none_is_told_without_its_password(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(URI, f"http://us:word@{place}")
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(
        main, ["generate", "--model", "models:/vqmri-generator@champion", "--out", "scans"]
    )
    assert done.exit_code == 3, done.output
    assert f"{URI} = http://{place} is no address. Set it to one" in done.stderr
    assert "word" not in done.output


CANARY = "Kestrel9f31c2"
SECRETS = {
    "MLFLOW_TRACKING_PASSWORD": f"{CANARY}a",
    "AWS_SECRET_ACCESS_KEY": f"{CANARY}b",
    "PREFECT_API_KEY": f"{CANARY}c",
    "PREFECT_API_AUTH_STRING": f"admin:{CANARY}d",
    "MLFLOW_TRACKING_USERNAME": "somebody",
}
ONE_STAGE = """
import logging, pathlib, sys
logging.basicConfig(level=logging.INFO)
from vqmri.stages.run import run
print(run("ingest", pathlib.Path.cwd()))
"""


class Refuses(BaseHTTPRequestHandler):
    """A tracking server that is well and knows nobody; it notes who is said to ask."""

    asked: ClassVar[list[tuple[str, str]]] = []

    def do_GET(self) -> None:
        self.asked.append((self.path, self.headers.get("Authorization", "")))
        self.send_response(200 if self.path.endswith("health") else 403)
        self.end_headers()

    def do_POST(self) -> None:
        self.do_GET()

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def refusing() -> Iterator[int]:
    Refuses.asked.clear()
    server = ThreadingHTTPServer(("127.0.0.1", 0), Refuses)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield int(server.server_address[1])
    server.shutdown()
    server.server_close()


@pytest.fixture
def project(tmp_path: Path) -> Path:
    root = tmp_path / "project"
    root.mkdir()
    (root / "params.yaml").write_text(yaml.safe_dump(tiny_values()))
    return root


def told(project: Path, uri: str | None, *command: str) -> str:
    """What a command says with all secrets in its environment; none is in it or in a file."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("MLFLOW", "PREFECT"))}
    environment |= SECRETS | {"PYTHONPATH": str(REPO), "PYTHONWARNINGS": "ignore"}
    environment |= {"MLFLOW_TRACKING_URI": uri} if uri else {}
    environment |= {"PREFECT_API_URL": f"{uri}/api"} if uri and uri.startswith("http") else {}
    environment |= {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "DO_NOT_TRACK": "true"}
    done = subprocess.run(
        [sys.executable, *command],
        cwd=project, env=environment, capture_output=True, text=True, check=False, timeout=200,
    )  # fmt: skip
    said = done.stdout + done.stderr
    assert done.returncode in (0, 2, 5), said
    assert "Traceback" not in said
    assert CANARY not in said, said
    assert [
        p for p in project.rglob("*") if p.is_file() and CANARY.encode() in p.read_bytes()
    ] == []
    return said


@pytest.mark.timeout(300)
def test_no_secret_is_told_by_a_stage_or_lies_in_its_outputs(project: Path, refusing: int) -> None:
    local = told(project, None, "-c", ONE_STAGE)
    assert "'volumes': 20" in local
    assert (project / "mlruns/mlflow.db").is_file()
    dead = f"http://somebody:{CANARY}e@127.0.0.1:{free_port()}"
    assert "will be sent later" in told(project, dead, "-c", ONE_STAGE)
    alive = f"http://somebody:{CANARY}e@127.0.0.1:{refusing}"
    assert "will be sent later" in told(project, alive, "-c", ONE_STAGE)
    assert any(who.startswith("Basic") for _, who in Refuses.asked), "they are sent as before"
    generate = ("-m", "vqmri", "generate", "--model", "models:/a/1", "--out", "scans")
    for uri in (dead, alive):
        assert "the registry of models refuses or does not answer" in told(project, uri, *generate)


@pytest.mark.timeout(300)
def test_no_secret_is_told_by_the_doctor(project: Path, refusing: int) -> None:
    for uri, verdict in (
        (f"http://somebody:{CANARY}f@127.0.0.1:{refusing}", "ok"),
        (f"http://somebody:{CANARY}f@127.0.0.1:{free_port()}", "error"),
        (f"http://somebody:{CANARY}f@127.0.0.1:port", "error"),
        (f"postgresql://somebody:{CANARY}f@127.0.0.1/runs?password={CANARY}g", "ok"),
    ):
        said = told(project, uri, "-m", "vqmri", "doctor", "--json")
        found = {check["what"]: check for check in json.loads(said.splitlines()[0])["checks"]}
        assert found["MLFLOW_TRACKING_URI"]["verdict"] == verdict, found
        assert "127.0.0.1" in found["MLFLOW_TRACKING_URI"]["found"]
        assert found["PREFECT_API_URL"]["verdict"] in ("ok", verdict)
    assert {who for _, who in Refuses.asked} == {""}, "the doctor asks as a stranger"
