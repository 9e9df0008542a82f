"""`--dry-run`: what a start would do, its exit code, and not a byte written."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner, Result

from tests.conftest import tiny_values
from vqmri.cli import main
from vqmri.layout import MADE_BY, OUTPUT_OF, Layout
from vqmri.outputs import hold
from vqmri.stages import STAGES

Listing = dict[str, tuple[int, bytes]]


@pytest.fixture
def project(copy_of_finished: Layout, monkeypatch: pytest.MonkeyPatch) -> Layout:
    monkeypatch.chdir(copy_of_finished.root)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    params()
    return copy_of_finished


def params(**changes: Any) -> None:
    values = tiny_values()
    values["train_prior"] |= changes
    Path("params.yaml").write_text(yaml.safe_dump(values))


def listing() -> Listing:
    """Everything in the project: when it was written, and its bytes."""
    return {
        str(path): (path.stat().st_mtime_ns, path.read_bytes() if path.is_file() else b"")
        for path in sorted(Path().rglob("*"))
    }


def rehearse(*command: str) -> tuple[Result, Any]:
    """The dry run as a program reads it; it must leave everything as it was."""
    before = listing()
    done = CliRunner().invoke(main, [*command, "--dry-run", "--json"])
    assert listing() == before
    return done, json.loads(done.stdout)


def test_every_stage_says_what_it_would_do_and_writes_nothing(project: Layout) -> None:
    for stage in STAGES:
        done, found = rehearse(stage)
        assert done.exit_code == 0, done.output
        assert found["stage"] == stage
        assert found["published"] == "up to date", stage
        assert found["start"] == ("not needed" if stage == "ingest" else "anew")
    _, found = rehearse("encode")
    assert found["writes"] == ["data/codes"]
    assert found["reads"]["vqvae"].startswith("data/vqvae (")
    assert 0 < found["least_megabytes"] < found["free_megabytes"]
    _, found = rehearse("evaluate")
    assert found["writes"] == ["data/report", "data/metrics.json", "data/plots"]


def test_other_params_a_killed_run_and_an_absent_output_are_told_apart(project: Layout) -> None:
    params(steps=13)
    _, found = rehearse("train_prior")
    assert (found["published"], found["start"]) == ("of other params or inputs", "anew")
    for output in ("prior", "volumes"):
        stage = MADE_BY[output]
        shutil.rmtree(project.output(output))
        _, found = rehearse(stage)
        assert (found["published"], found["start"]) == ("nothing", "anew")
    assert found["reads"]["raw"]


def test_a_killed_run_would_be_resumed(project: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("vqmri.stages.encode.encode_shard", stopped)
        assert CliRunner().invoke(main, ["encode"]).exit_code == 4
    _, found = rehearse("encode")
    assert found["start"] == "resumes"
    done, found = rehearse("clean")
    assert done.exit_code == 0
    (folder,) = found["removed"]
    assert Path(folder).is_dir()


def test_it_ends_as_the_start_would(project: Layout) -> None:
    def ends(code: int, said: str, *command: str) -> None:
        done, found = rehearse(*command)
        assert done.exit_code == code, done.output
        assert found["exit_code"] == code
        assert said in found["error"]
        assert said in done.stderr

    ends(2, "with `--out`", "sample", "--seed", "1")
    with hold(project.work / "codes.lock"):
        ends(6, "Wait until it ends", "encode")
        ends(6, "Wait until it ends", "clean")
    weights = project.output("vqvae") / "weights.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1])
    ends(7, "weights.safetensors", "sample")
    ends(7, "weights.safetensors", "encode")
    weights.write_bytes(whole)
    for stage, missing in (("evaluate", "use"), ("encode", "volumes")):
        shutil.rmtree(project.output(missing))
        ends(3, f"`vqmri {MADE_BY[missing]}`", stage)
    params(steps=-1)
    ends(2, "train_prior.steps = -1", "train_prior")


def test_a_disk_without_room_is_told(project: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    full = type("Usage", (), {"free": 0, "total": 1, "used": 1})()
    monkeypatch.setattr(shutil, "disk_usage", lambda place: full)
    for stage in ("train_vqvae", "encode", "train_prior", "sample", "ingest"):
        if stage == "ingest":  # it asks for no room where there is nothing to do
            shutil.rmtree(project.output("volumes"))
        done, found = rehearse(stage)
        assert done.exit_code == 5, done.output
        assert "Nothing was begun. Make room" in found["error"]


def test_samples_elsewhere_are_rehearsed_too(project: Layout, tmp_path: Path) -> None:
    out = tmp_path / "scans"
    done, found = rehearse("sample", "--count", "3", "--out", str(out))
    assert done.exit_code == 0, done.output
    assert found["writes"] == [str(out)]
    assert not out.exists()
    (tmp_path / "artifacts").symlink_to(project.data)
    done, found = rehearse("generate", "--model", str(tmp_path), "--out", str(out))
    assert done.exit_code == 0, done.output
    assert found["stage"] == "generate"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["artifacts", "project"]


def test_a_registry_is_not_made(project: Layout) -> None:
    done, found = rehearse("register")
    assert done.exit_code == 0, done.output
    assert found["vqmri-generator"] == {"version": None, "new": True}
    values = tiny_values()
    values["evaluate"]["gates"] = {"psnr_db": {"least": 0}}
    Path("params.yaml").write_text(yaml.safe_dump(values))
    done, found = rehearse("promote")
    assert done.exit_code == 3
    assert "`vqmri register`" in found["error"]


def test_a_person_is_told_in_lines(project: Layout) -> None:
    done = CliRunner().invoke(main, ["encode", "--dry-run"])
    assert done.exit_code == 0, done.output
    lines = dict(line.split(maxsplit=1) for line in done.stdout.splitlines())
    assert lines["writes"].strip() == "data/codes"
    assert lines["published"].strip() == "up to date"
    assert OUTPUT_OF["encode"] in lines["writes"]
