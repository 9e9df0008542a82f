import json
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks import quality
from tests.conftest import tiny_values
from vqmri.layout import Layout
from vqmri.params import PARAMS, Params
from vqmri.protocols import Metrics
from vqmri.stages import STAGES

KEYS = {
    "benchmark", "preset", "frechet_ratio", "mmd_ratio", "coverage", "dice_real",
    "dice_synthetic_over_real", "accuracy_real", "cas_over_real", "mia_auc",
    "positive_control_flagged", "metrics",
}  # fmt: skip


@pytest.fixture
def presets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "presets"
    folder.mkdir()
    values = tiny_values()
    values["sample"]["covariates"] = {"sex": ["F", "M"], "age": [30, 50, 80]}
    values["use"] = {"steps": 2}
    (folder / "small.yaml").write_text(yaml.safe_dump(values))
    monkeypatch.setattr(quality, "PRESETS", folder)
    monkeypatch.setattr(quality, "run", untracked)
    return folder


def untracked(name: str, root: Path) -> Metrics:
    """A stage without MLflow, which takes half a minute to register models."""
    module, function = STAGES[name].split(":")
    found: Metrics = getattr(import_module(module), function)(
        Params.load(root / PARAMS), Layout(root)
    )
    return found


def test_every_stage_runs_once_and_the_last_line_is_json(
    presets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    project = tmp_path / "project"
    arguments = ["--preset", "small", "--project", str(project), "--set", "train_prior.steps=3"]
    assert quality.main(arguments) == 0
    lines = capsys.readouterr().out.splitlines()
    found = json.loads(lines[-1])
    assert found.keys() == KEYS
    metrics = json.loads(Layout(project).metrics.read_text())
    assert found["metrics"] == metrics
    assert found["accuracy_real"] == metrics["use_sex_real"]  # and not age's, which has no chance
    assert found["mia_auc"] == metrics["mia_auc"]
    assert found["dice_real"] is None
    assert found["positive_control_flagged"] is None
    assert any(line.startswith("psnr_db ") for line in lines)
    assert yaml.safe_load((project / PARAMS).read_text())["train_prior"]["steps"] == 3
    before = {path: path.stat().st_mtime_ns for path in project.glob("data/*/MANIFEST.json")}
    assert quality.main(arguments) == 0
    assert before == {path: path.stat().st_mtime_ns for path in before}
    assert quality.main([*arguments[:-1], "train_prior.steps=4"]) == 3
    assert "another run" in capsys.readouterr().err


def test_the_side_is_the_parity_of_the_number_and_samples_are_asked_for_both(
    presets: Path, tmp_path: Path
) -> None:
    values: dict[str, Any] = yaml.safe_load(
        (Path(__file__).parents[2] / "vqmri/presets/hippocampus.yaml").read_text()
    )
    (presets / "hippocampus.yaml").write_text(yaml.safe_dump(values))
    raw = tmp_path / "scans"
    raw.mkdir()
    (raw / "subjects.tsv").write_text(
        "file\tinferred_subject\nhippocampus_003.nii.gz\t2\nhippocampus_004.nii.gz\t2\n"
    )
    project = tmp_path / "project"
    quality.prepare("hippocampus", raw, project)
    written = yaml.safe_load((project / PARAMS).read_text())
    table = (project / written["ingest"]["raw"] / "subjects.tsv").read_text().splitlines()
    assert table == [
        "file\tinferred_subject\tside",
        "hippocampus_003.nii.gz\t2\todd",
        "hippocampus_004.nii.gz\t2\teven",
    ]
    assert written["train_prior"]["conditions"] == ["side"]
    assert written["sample"]["covariates"] == {"side": ["odd", "even"]}
    assert (raw / "subjects.tsv").read_text().splitlines()[0] == "file\tinferred_subject"


def test_scans_that_are_needed_and_not_named_are_an_input_error(
    presets: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    values = tiny_values()
    values["ingest"]["source"] = {"kind": "nifti", "images": "*.nii.gz"}
    (presets / "scans.yaml").write_text(yaml.safe_dump(values))
    assert quality.main(["--preset", "scans", "--project", str(tmp_path / "p")]) == 3
    assert "--raw" in capsys.readouterr().err
    assert not (tmp_path / "p").exists()
