"""docs/dependencies.md against pyproject.toml, and the light installation against the imports."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

from packaging.specifiers import SpecifierSet

from tests.conftest import REPO

PROJECT: dict[str, Any] = tomllib.loads((REPO / "pyproject.toml").read_text())["project"]
DEVELOPERS = {"dev"}
IMPORTED = {"dvc", "fastapi", "httpx", "prefect", "prefect_dask"}


def names(requirements: list[str]) -> set[str]:
    found = {re.split(r"[\[<>=~ ]", requirement)[0] for requirement in requirements}
    return found - {"vqmri"}


def imports(folder: str) -> set[str]:
    found = set()
    for path in (REPO / folder).rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                found |= {alias.name.split(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module.split(".")[0])
    return found


def test_each_has_its_job_in_the_docs() -> None:
    page = (REPO / "docs/dependencies.md").read_text()
    cells = re.findall(r"^\| ([a-z][^|`]*) \| \S", page, re.MULTILINE)
    told = {name.strip() for cell in cells for name in cell.split(",")} - {
        "package",
        "other extras",
    }
    extras = PROJECT["optional-dependencies"]
    asked = names(PROJECT["dependencies"]).union(
        *(names(extra) for name, extra in extras.items() if name not in DEVELOPERS)
    )
    assert told == asked


def test_what_the_library_imports_needs_no_extra() -> None:
    assert imports("vqmri") & IMPORTED == set()
    assert imports("flows") & IMPORTED == {"dvc", "httpx", "prefect", "prefect_dask"}


def test_constraints_hold_a_version_of_each() -> None:
    lines = (REPO / Path("constraints.txt")).read_text().lower().splitlines()
    held = {re.sub(r"[-_.]+", "-", line.partition("==")[0]) for line in lines}
    extras = PROJECT["optional-dependencies"].items()  # pip-audit is for these versions
    asked = names(
        [*PROJECT["dependencies"], *(o for name, extra in extras if name != "audit" for o in extra)]
    )
    assert {re.sub(r"[-_.]+", "-", name.lower()) for name in asked} - held == set()


def test_every_version_runs_on_the_first_python_that_is_promised() -> None:
    """Debian's 3.11 is 3.11.2; pip looks for another version for minutes and then gives up."""
    promised = PROJECT["requires-python"].removeprefix(">=") + ".0"
    lines = (REPO / "constraints.txt").read_text().splitlines()
    names = {re.sub(r"[-_.]+", "-", line.partition("==")[0].lower()) for line in lines}
    wants = {
        re.sub(r"[-_.]+", "-", found.name.lower()): found.metadata["Requires-Python"]
        for found in distributions()
        if "Requires-Python" in found.metadata
    }
    assert len(names & wants.keys()) > len(names) / 2
    assert [
        name for name in names & wants.keys() if promised not in SpecifierSet(wants[name])
    ] == []


def test_an_installed_copy_brings_all_that_the_command_reads(tmp_path: Path) -> None:
    source, site, empty = (tmp_path / name for name in ("source", "site", "empty"))
    source.mkdir()
    empty.mkdir()
    for folder in ("vqmri", "flows"):
        shutil.copytree(REPO / folder, source / folder)
    for file in ("pyproject.toml", "README.md"):
        shutil.copy(REPO / file, source / file)
    options = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--target", str(site)]
    subprocess.run([sys.executable, "-m", "pip", "install", *options, "."], cwd=source, check=True)
    shutil.rmtree(source)
    done = subprocess.run(
        [sys.executable, "-m", "vqmri", "init", "--preset", "mnist"],
        cwd=empty, env=os.environ | {"PYTHONPATH": str(site)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (empty / "params.yaml").read_text() == (site / "vqmri/presets/mnist.yaml").read_text()
    files = [path.relative_to(REPO) for path in (REPO / "vqmri").rglob("*.*") if path.is_file()]
    lost = [path for path in files if not (site / path).is_file()]
    assert [path for path in lost if "__pycache__" not in path.parts] == []
