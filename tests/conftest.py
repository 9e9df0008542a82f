"""Runtime checks of every array annotation, and projects small enough to run whole in a test."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

# Hooks must stand before the first import of the library.
from jaxtyping import install_import_hook

import tests.checking  # noqa: F401  (the hook looks it up by name)

install_import_hook("vqmri", "tests.checking.checked")

import pytest
import torch
import yaml

from vqmri.layout import Layout
from vqmri.params import Params
from vqmri.protocols import Metrics
from vqmri.stages import STAGES

REPO = Path(__file__).parent.parent


def tiny_values() -> dict[str, Any]:
    """The phantom preset with every number made small: all stages in a few seconds."""
    values: dict[str, Any] = yaml.safe_load((REPO / "vqmri/presets/phantom.yaml").read_text())
    values["ingest"] |= {"shape": [16, 24, 16], "spacing": [10.0, 10.0, 10.0]}
    values["ingest"]["source"] |= {"count": 20, "spacing": 10.0}
    values["train_vqvae"] |= {"channels": [8, 16], "embedding_dim": 4, "steps": 24, "warmup": 2}
    values["train_vqvae"]["levels"] = [{"downsampling": 4, "num_embeddings": 16}]
    values["encode"] |= {"items_per_shard": 8}
    values["train_prior"] |= {"channels": 8, "num_layers": 3, "steps": 12, "warmup": 2}
    values["sample"] = {"count": 10, "seed": 0, "temperature": 1.0, "suffix": "T1w"}
    values["study"] = {"count": 4, "temperatures": [1.0]}
    values["use"] = {"steps": 2}
    return values


@pytest.fixture(autouse=True)
def _own_random_state() -> Iterator[None]:
    """A test neither meets nor leaves a random state of another's."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


@pytest.fixture(scope="module")
def registry_root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project with a registry of its own; making one costs seconds, so a module shares it."""
    root = tmp_path_factory.mktemp("registry")
    with pytest.MonkeyPatch.context() as patch:
        patch.delenv("MLFLOW_TRACKING_URI", raising=False)
        yield root


@pytest.fixture
def tiny() -> Params:
    return Params.model_validate(tiny_values())


def run_stages(values: dict[str, Any], root: Path) -> tuple[Layout, Metrics]:
    """Every stage on a project in `root`; the metrics of the last one."""
    (root / "params.yaml").write_text(yaml.safe_dump(values))
    params, data = Params.load(root / "params.yaml"), Layout(root)
    metrics: Metrics = {}
    for dotted in STAGES.values():
        module, name = dotted.split(":")
        metrics = getattr(import_module(module), name)(params, data)
    return data, metrics


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """A project in which every stage has run on tiny phantoms. Tests read it and never write."""
    return run_stages(tiny_values(), tmp_path_factory.mktemp("finished"))[0]


@pytest.fixture
def copy_of_finished(finished: Layout, tmp_path: Path) -> Layout:
    """The same, to write in."""
    shutil.copytree(finished.root, tmp_path / "project")
    return Layout(tmp_path / "project")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The repository as a user would have it, in a folder of its own, with tiny params.yaml."""
    root = tmp_path / "checkout"
    names = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],
        cwd=REPO, check=True, capture_output=True, text=True,
    ).stdout.split()  # fmt: skip
    for name in names:
        if (REPO / name).is_file() and name != "dvc.lock":  # as a fresh clone, without its past
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(REPO / name, root / name)
    subprocess.run(["git", "init", "--quiet"], cwd=root, check=True)
    (root / "params.yaml").write_text(yaml.safe_dump(tiny_values(), sort_keys=False))
    return root


@pytest.fixture
def shell(checkout: Path, tmp_path: Path) -> dict[str, str]:
    """Environment in which `vqmri`, `dvc` and `prefect` are those of the checkout."""
    scripts = str(Path(sys.executable).parent)
    inherited = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "MLFLOW_"))}
    return inherited | {
        "PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(checkout),
        "PREFECT_HOME": str(tmp_path / "prefect"),
        "DO_NOT_TRACK": "true",
        "PYTHONWARNINGS": "ignore",
    }
