"""dvc.yaml against the code, and DVC itself on a checkout."""

import json
import subprocess
from pathlib import Path
from typing import Any

import grimp
import pytest
import yaml

from tests.conftest import REPO
from tests.doors import bytes_of
from vqmri.layout import Layout
from vqmri.stages import STAGES

DVC: dict[str, Any] = yaml.safe_load((REPO / "dvc.yaml").read_text())
NOT_DEPS = ("vqmri.params", "vqmri.layout", "vqmri.cli", "vqmri.tracking", "vqmri.terminal")


def dvc(checkout: Path, shell: dict[str, str], *arguments: str) -> str:
    done = subprocess.run(
        ["dvc", *arguments], cwd=checkout, env=shell, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def changed(checkout: Path, shell: dict[str, str]) -> set[str]:
    return set(json.loads(dvc(checkout, shell, "status", "--json")))


def test_its_stages_are_the_stages() -> None:
    assert list(DVC["stages"]) == list(STAGES)
    for name, stage in DVC["stages"].items():
        assert stage["cmd"] == f"vqmri {name}"
        assert all(
            options == {"persist": True} for out in stage["outs"] for options in out.values()
        )


@pytest.mark.parametrize("name", STAGES)
def test_deps_cover_what_the_stage_imports_and_nothing_more(name: str) -> None:
    graph = grimp.build_graph("vqmri")
    module = STAGES[name].split(":")[0]
    closure = graph.find_upstream_modules(module) | {module}
    needed = {m for m in closure if not m.startswith(NOT_DEPS) and m != "vqmri"}
    deps = [Path(d) for d in DVC["stages"][name]["deps"] if d.startswith("vqmri")]

    def covered(imported: str) -> bool:
        path = Path(*imported.split("."))
        file = path.with_suffix(".py")
        if not (REPO / file).is_file():
            file = path / "__init__.py"
        # a package's empty __init__ cannot change what a stage makes
        empty = file.name == "__init__.py" and "import" not in (REPO / file).read_text()
        return empty or any(file == dep or dep in file.parents for dep in deps)

    assert [m for m in sorted(needed) if not covered(m)] == []
    for dep in deps:
        assert (REPO / dep).exists(), dep
        top = ".".join(dep.with_suffix("").parts).removesuffix(".__init__")
        assert any(m == top or m.startswith(f"{top}.") for m in needed), f"{dep} is not imported"


def test_repro_then_nothing_then_only_what_a_change_reaches(
    checkout: Path, shell: dict[str, str], finished: Layout
) -> None:
    dvc(checkout, shell, "repro", "--quiet")
    assert bytes_of(checkout) == bytes_of(finished.root)
    metrics = json.loads(dvc(checkout, shell, "metrics", "show", "--json"))
    assert "psnr_db" in json.dumps(metrics)
    assert changed(checkout, shell) == set()
    dvc(checkout, shell, "commit", "-f", "train_vqvae")
    assert "up to date" in dvc(checkout, shell, "repro")

    assert "Running stage 'ingest'" in dvc(checkout, shell, "repro", "-f", "-s", "ingest")
    assert changed(checkout, shell) == set(), "it was of these scans already"

    pixelcnn = checkout / "vqmri/prior/pixelcnn.py"
    source = pixelcnn.read_text()
    pixelcnn.write_text(source + "\n# a changed line\n")
    assert changed(checkout, shell) == {"train_prior", "sample", "study", "use", "evaluate"}
    pixelcnn.write_text(source)

    before = {p: p.stat().st_mtime_ns for p in (checkout / "data").glob("*/MANIFEST.json")}
    params = checkout / "params.yaml"
    params.write_text(params.read_text().replace("temperature: 1.0", "temperature: 0.5"))
    assert changed(checkout, shell) == {"sample"}
    dvc(checkout, shell, "repro", "--quiet", "sample")
    after = {p: p.stat().st_mtime_ns for p in (checkout / "data").glob("*/MANIFEST.json")}
    ran = {p.parent.name for p in after if after[p] != before[p]}
    assert ran == {"samples"}
    assert changed(checkout, shell) == {"use", "evaluate"}
    plots = dvc(checkout, shell, "plots", "show", "--out", "plots")
    assert "index.html" in plots
