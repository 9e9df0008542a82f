"""Covariates from the table to the samples, by every door."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from click.testing import CliRunner

from tests.conftest import tiny_values
from vqmri.cli import main
from vqmri.codes import CodeStore
from vqmri.errors import InputError, ParamsError
from vqmri.layout import Layout
from vqmri.outputs import verify
from vqmri.params import Params
from vqmri.stages.sample import sample
from vqmri.stages.train_prior import train_prior


def with_covariates(tiny: Params, **changes: object) -> Params:
    return tiny.model_copy(update={"sample": tiny.sample.model_copy(update=changes)})


def participants(folder: Path) -> list[dict[str, str]]:
    with (folder / "participants.tsv").open() as file:
        return list(csv.DictReader(file, delimiter="\t"))


def test_covariates_of_params_reach_the_samples(copy_of_finished: Layout, tiny: Params) -> None:
    before = CodeStore(copy_of_finished.output("samples")).read(range(10))[0]
    asked = with_covariates(tiny, covariates={"sex": ["F", "M"], "age": 65})
    sample(asked, copy_of_finished)
    folder = copy_of_finished.output("samples")
    rows = participants(folder)
    assert [row["sex"] for row in rows] == ["F", "M"] * 5
    assert {row["age"] for row in rows} == {"65"}
    sidecar = next(iter(sorted(folder.glob("sub-*/anat/*.json"))))
    assert json.loads(sidecar.read_text())["Covariates"] == {"sex": "F", "age": 65}
    store = CodeStore(folder)
    assert store.attributes["covariates"][1] == {"sex": "M", "age": 65}
    assert (store.read(range(10))[0] != before).any()


def test_guidance_towards_nothing_is_refused(copy_of_finished: Layout, tiny: Params) -> None:
    before = copy_of_finished.output("samples").stat().st_ino
    with pytest.raises(ParamsError, match=r"guidance = 3.0 strengthens .*--covariate"):
        sample(with_covariates(tiny, guidance=3.0), copy_of_finished)
    assert copy_of_finished.output("samples").stat().st_ino == before


def test_guidance_of_one_is_the_prior_and_more_is_not(
    copy_of_finished: Layout, tiny: Params
) -> None:
    drawn = []
    for guidance in (1.0, 4.0):
        asked = with_covariates(tiny, covariates={"age": 65}, guidance=guidance)
        sample(asked, copy_of_finished)
        drawn.append(CodeStore(copy_of_finished.output("samples")).read(range(10))[0])
    assert (drawn[0] != drawn[1]).any()


@pytest.mark.parametrize(
    ("covariates", "expected"),
    [
        ({"age": 120}, "--extrapolate"),
        ({"age": "old"}, "a number is needed"),
        ({"sex": "X"}, "trained on F, M"),
    ],
)
def test_what_the_prior_does_not_know_is_an_error_and_changes_nothing(
    copy_of_finished: Layout, tiny: Params, covariates: dict[str, object], expected: str
) -> None:
    before = (copy_of_finished.output("samples") / "MANIFEST.json").read_bytes()
    with pytest.raises(ParamsError, match=r"sample\.covariates") as caught:
        sample(with_covariates(tiny, covariates=covariates), copy_of_finished)
    assert expected in str(caught.value)
    assert (copy_of_finished.output("samples") / "MANIFEST.json").read_bytes() == before
    assert not list(copy_of_finished.work.glob("samples-*"))


def test_extrapolation_is_allowed_when_asked_for(copy_of_finished: Layout, tiny: Params) -> None:
    asked = with_covariates(tiny, covariates={"age": 120}, extrapolate=True)
    assert sample(asked, copy_of_finished) == {"samples": 10}


def test_the_command_line_asks_for_covariates_and_leaves_the_projects_samples(
    copy_of_finished: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(copy_of_finished.root)
    monkeypatch.setattr("vqmri.tracking.mlflow.connect", no_server)
    Path("params.yaml").write_text(yaml.safe_dump(tiny_values()))
    before = Path("data/samples/MANIFEST.json").read_bytes()
    asked = ["sample", "--covariate", "sex=F,M", "--covariate", "age=65", "--count", "3"]

    refused = CliRunner().invoke(main, asked)
    assert refused.exit_code == 2
    assert "--out" in refused.output

    done = CliRunner().invoke(main, [*asked, "--out", "elsewhere/old"])
    assert done.exit_code == 0, done.output
    rows = participants(Path("elsewhere/old"))
    assert [(row["sex"], row["age"]) for row in rows] == [("F", "65"), ("M", "65"), ("F", "65")]
    assert Path("data/samples/MANIFEST.json").read_bytes() == before

    unknown = CliRunner().invoke(main, ["sample", "--covariate", "weight=70", "--out", "other"])
    assert unknown.exit_code == 2
    assert "weight" in unknown.output
    assert not Path("other").exists()
    assert CliRunner().invoke(main, ["sample", "--covariate", "sex"]).exit_code == 2


@pytest.mark.parametrize("out", ["data", ".", "data/vqvae", "data/samples/x", "full", "data/raw/x"])
def test_no_folder_is_replaced_that_is_not_samples(
    copy_of_finished: Layout, tiny: Params, monkeypatch: pytest.MonkeyPatch, out: str
) -> None:
    monkeypatch.chdir(copy_of_finished.root)
    Path("full").mkdir()
    Path("full/thesis.txt").write_text("years of work")
    with pytest.raises(ParamsError, match="--out"):
        sample(tiny, copy_of_finished, out=Path(out))
    assert Path("full/thesis.txt").read_text() == "years of work"
    assert verify(copy_of_finished.output("samples")).items


def test_samples_may_replace_samples(copy_of_finished: Layout, tiny: Params) -> None:
    out = copy_of_finished.root / "more"
    sample(tiny, copy_of_finished, out=out)
    sample(with_covariates(tiny, seed=4), copy_of_finished, out=out)
    assert CodeStore(out).attributes["sample"]["seed"] == 4


def no_server(root: Path) -> None:
    raise OSError("no server in this test")


def test_a_condition_that_no_subject_has_is_an_error_before_training(
    copy_of_finished: Layout, tiny: Params
) -> None:
    asked = tiny.model_copy(
        update={"train_prior": tiny.train_prior.model_copy(update={"conditions": ["weight"]})}
    )
    with pytest.raises(InputError, match="'weight' is known for none"):
        train_prior(asked, copy_of_finished)
    assert not list(copy_of_finished.work.glob("prior-*/state/step-*"))


@pytest.mark.parametrize(
    ("section", "changes", "expected"),
    [
        ("train_prior", {"conditions": ["weight"]}, "'weight' is no covariate of ingest.source"),
        ("sample", {"covariates": {"weight": 70}}, "sample.covariates.weight"),
        ("use", {"steps": 0}, "use.steps = 0"),
        ("sample", {"covariates": {"age": []}}, "sample.covariates.age"),
        ("study", {"temperatures": [0.5]}, "1 must be among them"),
        ("train_prior", {"condition_dropout": 0}, "train_prior.condition_dropout = 0"),
        ("train_prior", {"heads": 3}, "heads = 3 must divide channels = 8"),
        ("train_prior", {"num_attention": 3}, "num_attention must be below num_layers"),
    ],
)
def test_what_does_not_fit_together_is_refused_before_anything_runs(
    tmp_path: Path, section: str, changes: dict[str, object], expected: str
) -> None:
    values = tiny_values()
    values[section] |= changes
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(ParamsError) as caught:
        Params.load(tmp_path / "params.yaml")
    assert expected in str(caught.value)


def test_samples_of_one_covariate_differ_from_another_only_by_it(
    copy_of_finished: Layout, tiny: Params
) -> None:
    drawn = []
    for age in (20, 89):
        changes = {"covariates": {"age": age}, "extrapolate": True}
        sample(with_covariates(tiny, **changes), copy_of_finished)
        drawn.append(CodeStore(copy_of_finished.output("samples")).read(range(10))[0])
    share = float(np.mean(drawn[0] == drawn[1]))
    assert 0.2 < share < 1  # the same noise: most draws fall alike
