"""Scans from a registered generator, in a folder that holds no project."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from vqmri.cli import main
from vqmri.layout import Layout
from vqmri.outputs import Manifest
from vqmri.tracking import registry

GENERATOR = "vqmri-generator"
CHAMPION = f"models:/{GENERATOR}@champion"
AS_IN_THE_PROJECT = ("--count", "10")


@pytest.fixture(scope="module")
def server(finished: Layout, registry_root: Path) -> str:
    """Address of a registry whose generator, and VQ-VAE, are champion."""
    parts = {name: finished.output(name) for name in ("vqvae", "prior")}
    with registry.answering(registry_root):
        for name, folders in {"vqmri-vqvae": {"vqvae": parts["vqvae"]}, GENERATOR: parts}.items():
            registry.make_champion(name, registry.add(name, folders, registry_root))
    return f"sqlite:///{registry_root / 'mlruns' / 'mlflow.db'}"


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def generate(model: str, *options: str) -> Result:
    return CliRunner().invoke(main, ["generate", "--model", model, "--out", "scans", *options])


# MLflow's own, at registration: the signature is given, and an example would mean drawing samples
@pytest.mark.filterwarnings("ignore:.*type hint:UserWarning")
@pytest.mark.filterwarnings("ignore:.*input example was not provided:UserWarning")
def test_scans_of_the_champion_are_those_of_the_project(
    finished: Layout, server: str, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    tried = generate(CHAMPION, *AS_IN_THE_PROJECT, "--dry-run", "--json")
    assert tried.exit_code == 0, tried.output
    assert json.loads(tried.stdout)["reads"] == {"model": CHAMPION}
    assert list(elsewhere.iterdir()) == []
    done = generate(CHAMPION, *AS_IN_THE_PROJECT, "--json")
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout) == {"samples": 10}
    assert Manifest.read(elsewhere / "scans") == Manifest.read(finished.output("samples"))
    assert [path.name for path in elsewhere.iterdir() if path.name != ".work"] == ["scans"]

    other = generate(CHAMPION, "--count", "2", "--covariate", "sex=F")
    assert other.exit_code == 0, other.output  # samples may replace samples
    assert "sub-synthetic00001\tF" in (elsewhere / "scans" / "participants.tsv").read_text()


def test_a_registry_in_the_current_folder_is_found(
    server: str, registry_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.chdir(registry_root)
    command = ["generate", "--model", CHAMPION, "--out", str(tmp_path / "scans")]
    done = CliRunner().invoke(main, command)
    assert done.exit_code == 0, done.output


def test_a_folder_serves_as_a_model(finished: Layout, elsewhere: Path) -> None:
    (elsewhere / "model").mkdir()
    (elsewhere / "model" / "artifacts").symlink_to(finished.data)
    done = generate("model", *AS_IN_THE_PROJECT)
    assert done.exit_code == 0, done.output
    assert Manifest.read(elsewhere / "scans") == Manifest.read(finished.output("samples"))


@pytest.mark.parametrize(
    ("model", "options", "code", "said"),
    [
        ("models:/vqmri-generator@nobody", [], 3, "has no such model"),
        ("models:/unheard-of/1", [], 3, "has no such model"),
        ("models:/vqmri-vqvae@champion", [], 3, "no vqmri-generator: it has no artifacts/prior"),
        ("nowhere", [], 3, "no such folder. Give one, or a registered model as models:/"),
        (CHAMPION, ["--count", "0"], 2, "count = 0"),
        (CHAMPION, ["--temperature", "-1", "--top-p", "7"], 2, "2 faults, nothing was written"),
        (CHAMPION, ["--covariate", "height=3"], 2, "height"),
    ],
)
def test_what_cannot_be_drawn_is_refused_and_nothing_written(
    model: str, options: list[str], code: int, said: str,
    server: str, elsewhere: Path, monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("MLFLOW_TRACKING_URI", server)
    done = generate(model, *options)
    assert (done.exit_code, said in done.output) == (code, True), done.output
    assert not list(elsewhere.iterdir())


def test_without_a_registry_one_is_asked_for_and_none_is_made(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    done = generate(CHAMPION)
    assert done.exit_code == 3
    assert "Name its server in MLFLOW_TRACKING_URI" in done.output
    assert not list(elsewhere.iterdir())


def test_a_folder_of_other_things_is_not_replaced(finished: Layout, elsewhere: Path) -> None:
    (elsewhere / "scans").mkdir()
    (elsewhere / "scans" / "thesis.txt").write_text("mine")
    done = generate(CHAMPION)
    assert done.exit_code == 2
    assert (elsewhere / "scans" / "thesis.txt").read_text() == "mine"


@pytest.mark.parametrize("out", [".", "../here", ".."])
def test_the_current_folder_is_not_replaced(
    out: str, finished: Layout, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (elsewhere / "model").mkdir()
    (elsewhere / "model" / "artifacts").symlink_to(finished.data)
    (elsewhere / "scans" / "here").mkdir(parents=True)
    monkeypatch.chdir(elsewhere / "scans" / "here")
    done = generate("../../model", "--out", out)
    assert done.exit_code == 2, done.output
    assert f"--out {out}: the current folder would be replaced. Name another" in done.output
    assert not list(Path.cwd().iterdir())
    assert [path.name for path in Path("..").iterdir()] == ["here"]


def test_a_changed_file_of_the_model_is_found(copy_of_finished: Layout, elsewhere: Path) -> None:
    (elsewhere / "model").mkdir()
    (elsewhere / "model" / "artifacts").symlink_to(copy_of_finished.data)
    weights = copy_of_finished.output("prior") / "weights.safetensors"
    changed = bytearray(weights.read_bytes())
    changed[-1] ^= 1
    weights.write_bytes(changed)
    done = generate("model")
    assert done.exit_code == 7, done.output
    assert "weights.safetensors" in done.output
    assert not (elsewhere / "scans").exists()
