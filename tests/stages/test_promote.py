"""From published models to the registry's aliases, in a real store."""

import json
import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlflow
import pytest
import yaml
from click.testing import CliRunner

from tests.conftest import tiny_values
from vqmri.cli import main
from vqmri.errors import InputError, IntegrityError, ParamsError
from vqmri.evaluation.gates import Gate, GateError
from vqmri.layout import Layout
from vqmri.outputs import Manifest, sha256_of
from vqmri.stages.promote import promote, register
from vqmri.tracking import registry
from vqmri.tracking.mlflow import weights_tags

VQVAE, GENERATOR = "vqmri-vqvae", "vqmri-generator"
OPEN = [Gate("psnr_db", least=0), Gate("prior_bits_per_code", most=100)]  # any model passes


@pytest.fixture
def client(registry_root: Path) -> Iterator[mlflow.MlflowClient]:
    """Of a registry without models; one store for the module, because making it costs seconds."""
    with registry.answering(registry_root):
        client = mlflow.MlflowClient()
        yield client
        for model in client.search_registered_models():
            client.delete_registered_model(model.name)


def metrics_of(data: Layout) -> dict[str, float]:
    text = (data.output("report") / "metrics.json").read_text()
    metrics: dict[str, float] = json.loads(text)
    return metrics


def enter(client: mlflow.MlflowClient, name: str, tags: dict[str, str]) -> int:
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name)
    return int(client.create_model_version(name, "nowhere", tags=tags).version)


def enter_models(client: mlflow.MlflowClient, data: Layout) -> None:
    """Versions with the weights of the published folders and without the models."""
    folders = {name: data.output(name) for name in ("vqvae", "prior")}
    enter(client, VQVAE, weights_tags({"vqvae": folders["vqvae"]}))
    enter(client, GENERATOR, weights_tags(folders))


def enter_champion(client: mlflow.MlflowClient, data: Layout, **metrics: float) -> None:
    """Version 1 of both models, champion, with other weights and these figures."""
    enter(client, VQVAE, {"vqvae_weights": "0"})
    enter(client, GENERATOR, {"vqvae_weights": "0", "prior_weights": "0"})
    for name in (VQVAE, GENERATOR):
        registry.make_champion(name, 1)
    volumes = Manifest.read(data.output("report")).provenance["inputs"]["volumes"]
    registry.note_measured(GENERATOR, 1, {"metrics": metrics, "volumes": volumes})


def aliases(client: mlflow.MlflowClient) -> dict[str, dict[str, int]]:
    return {
        name: {key: int(value) for key, value in client.get_registered_model(name).aliases.items()}
        for name in (VQVAE, GENERATOR)
    }


# MLflow's own, at registration: the signature is given, and an example would mean drawing samples
@pytest.mark.filterwarnings("ignore:.*type hint:UserWarning")
@pytest.mark.filterwarnings("ignore:.*input example was not provided:UserWarning")
def test_pulled_models_are_registered_once_and_promoted_once(
    finished: Layout, registry_root: Path, client: mlflow.MlflowClient
) -> None:
    with pytest.raises(InputError, match="`vqmri register`"):
        promote(finished, registry_root, OPEN)
    done = register(finished, registry_root)
    assert done == {VQVAE: {"version": 1, "new": True}, GENERATOR: {"version": 1, "new": True}}
    assert aliases(client) == {VQVAE: {"challenger": 1}, GENERATOR: {"challenger": 1}}
    weights = {
        f"{name}_weights": sha256_of(finished.output(name) / "weights.safetensors")
        for name in ("vqvae", "prior")
    }
    assert client.get_model_version(GENERATOR, "1").tags.items() >= weights.items()
    tags = client.get_model_version(VQVAE, "1").tags
    assert tags["vqvae_weights"] == weights["vqvae_weights"]
    assert "prior_weights" not in tags
    local = mlflow.artifacts.download_artifacts(f"models:/{GENERATOR}@challenger")
    for name in ("vqvae", "prior"):
        held = Path(local) / "artifacts" / name / "weights.safetensors"
        assert sha256_of(held) == weights[f"{name}_weights"]
    assert {run.info.run_name for run in mlflow.search_runs(output_format="list")} == {"register"}

    again = register(finished, registry_root)
    assert again == {VQVAE: {"version": 1, "new": False}, GENERATOR: {"version": 1, "new": False}}

    first = promote(finished, registry_root, OPEN)
    figures = {gate.name: metrics_of(finished)[gate.name] for gate in OPEN}
    assert first == {
        "outcome": "promoted",
        "champion": {VQVAE: 1, GENERATOR: 1},
        "previous": {VQVAE: None, GENERATOR: None},
        "metrics": figures,
    }
    both = {"challenger": 1, "champion": 1}
    assert aliases(client) == {VQVAE: both, GENERATOR: both}
    assert registry.measured(GENERATOR, 1)["metrics"] == figures
    second = promote(finished, registry_root, OPEN)
    assert second == first | {"outcome": "already champion", "previous": {}}
    assert aliases(client) == {VQVAE: both, GENERATOR: both}


def test_a_better_model_takes_the_champions_place(
    finished: Layout,
    registry_root: Path,
    client: mlflow.MlflowClient,
    caplog: pytest.LogCaptureFixture,
) -> None:
    measured = metrics_of(finished)
    enter_champion(
        client, finished,
        psnr_db=measured["psnr_db"] + 1,
        psnr_db_low=measured["psnr_db"],  # within the champion's own uncertainty
        prior_bits_per_code=measured["prior_bits_per_code"],
    )  # fmt: skip
    enter_models(client, finished)
    done = promote(finished, registry_root, OPEN)
    assert done["champion"] == {VQVAE: 2, GENERATOR: 2}
    assert done["previous"] == {VQVAE: 1, GENERATOR: 1}
    both = {"champion": 2, "previous": 1}
    assert aliases(client) == {VQVAE: both, GENERATOR: both}
    assert not caplog.records


def test_a_model_that_fails_a_gate_or_is_worse_moves_nothing_and_is_told_all(
    finished: Layout, registry_root: Path, client: mlflow.MlflowClient
) -> None:
    measured = metrics_of(finished)
    bits = measured["prior_bits_per_code"]
    enter_champion(client, finished, psnr_db=0.0, prior_bits_per_code=bits - 0.5)
    enter_models(client, finished)
    before = aliases(client)
    gates = [Gate("psnr_db", least=99), Gate("sim", least=0.0), *OPEN[1:]]
    with pytest.raises(GateError) as caught:
        promote(finished, registry_root, gates)
    assert caught.value.exit_code == 3
    lines = str(caught.value).splitlines()
    assert lines[1] == f"  psnr_db ≥ 99: {measured['psnr_db']:.6g}, fails"
    assert lines[2] == "  sim ≥ 0: not measured (is it ssim or ms_ssim?), fails"
    assert lines[3] == f"  prior_bits_per_code ≤ 100: {bits:.6g}, passes"
    assert lines[4] == (
        f"  prior_bits_per_code: {bits:.6g}, the champion has {bits - 0.5:.6g} (version 1)"
    )
    assert lines[5:] == ["Train a better one, or change evaluate.gates in params.yaml."]
    with pytest.raises(GateError, match=r"the champion has"):  # every gate is passed
        promote(finished, registry_root, OPEN)
    assert aliases(client) == before
    assert registry.measured(GENERATOR, 2) == {}


def test_the_champion_itself_is_not_compared_but_must_pass_the_gates(
    finished: Layout, registry_root: Path, client: mlflow.MlflowClient
) -> None:
    enter_models(client, finished)
    promote(finished, registry_root, OPEN)
    enter_models(client, finished)  # the same weights again, newer
    registry.note_measured(GENERATOR, 1, {"metrics": {"psnr_db": 1e9}, "volumes": ""})
    before = aliases(client)
    assert promote(finished, registry_root, OPEN)["outcome"] == "already champion"
    with pytest.raises(GateError, match="psnr_db ≥ 99"):
        promote(finished, registry_root, [Gate("psnr_db", least=99)])
    assert aliases(client) == before


def test_a_promotion_that_was_cut_in_two_is_finished(
    finished: Layout, registry_root: Path, client: mlflow.MlflowClient
) -> None:
    enter_champion(client, finished)
    enter_models(client, finished)
    registry.make_champion(VQVAE, 2)
    done = promote(finished, registry_root, OPEN)
    assert (done["outcome"], done["previous"]) == ("promoted", {GENERATOR: 1})
    both = {"champion": 2, "previous": 1}
    assert aliases(client) == {VQVAE: both, GENERATOR: both}


def test_what_cannot_be_compared_is_told(
    finished: Layout,
    registry_root: Path,
    client: mlflow.MlflowClient,
    caplog: pytest.LogCaptureFixture,
) -> None:
    enter_champion(client, finished, psnr_db=0.0)
    noted = registry.measured(GENERATOR, 1)
    registry.note_measured(GENERATOR, 1, noted | {"volumes": "others"})
    enter_models(client, finished)
    with caplog.at_level(logging.WARNING):
        assert promote(finished, registry_root, OPEN)["outcome"] == "promoted"
    lacking, volumes = (record.getMessage() for record in caplog.records)
    assert lacking.endswith("not compared: prior_bits_per_code.")
    assert "other volumes" in volumes


@pytest.mark.parametrize("other", ["vqvae", "prior"])
def test_a_report_of_other_models_is_refused(
    copy_of_finished: Layout, registry_root: Path, other: str
) -> None:
    folder = copy_of_finished.output(other)
    replace(Manifest.read(folder), fingerprint="of another training").write(folder)
    with pytest.raises(IntegrityError, match=rf"than .*{other} \(\w{{16}}\)\. Run `vqmri evalu"):
        promote(copy_of_finished, registry_root, OPEN)


def test_a_changed_report_is_refused(copy_of_finished: Layout, registry_root: Path) -> None:
    path = copy_of_finished.output("report") / "metrics.json"
    path.write_text(json.dumps(metrics_of(copy_of_finished) | {"psnr_db": 99.0}))
    with pytest.raises(IntegrityError, match=r"metrics\.json has changed"):
        promote(copy_of_finished, registry_root, OPEN)


def test_a_prior_of_another_vqvae_and_damaged_weights_are_refused(
    copy_of_finished: Layout, registry_root: Path, client: mlflow.MlflowClient
) -> None:
    folder = copy_of_finished.output("prior")
    weights = folder / "weights.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with pytest.raises(IntegrityError, match=r"weights\.safetensors has changed"):
        register(copy_of_finished, registry_root)
    weights.write_bytes(whole)
    described = json.loads((folder / "model.json").read_text())
    described["about"]["vqvae_weights"] = "0" * 64
    (folder / "model.json").write_text(json.dumps(described))
    manifest = Manifest.read(folder)
    items = {**manifest.items, "model.json": sha256_of(folder / "model.json")}
    replace(manifest, items=items).write(folder)
    with pytest.raises(IntegrityError, match="`vqmri train_prior`"):
        register(copy_of_finished, registry_root)
    with pytest.raises(IntegrityError, match="`vqmri train_prior`"):
        promote(copy_of_finished, registry_root, OPEN)
    assert client.search_registered_models() == []


def test_without_gates_no_model_is_promoted(finished: Layout, registry_root: Path) -> None:
    with pytest.raises(ParamsError, match=r"evaluate:\n  gates:") as caught:
        promote(finished, registry_root, [])
    assert caught.value.exit_code == 2


def test_the_commands_print_json_or_the_error_and_can_be_rehearsed(
    finished: Layout,
    registry_root: Path,
    client: mlflow.MlflowClient,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def call(command: str, *options: str, least: float = 0) -> Any:
        values = tiny_values()
        values["evaluate"]["gates"] = {"psnr_db": {"least": least}}
        (tmp_path / "params.yaml").write_text(yaml.safe_dump(values))
        return CliRunner().invoke(main, [command, *options])

    monkeypatch.setattr("vqmri.params.PARAMS", str(tmp_path / "params.yaml"))
    monkeypatch.chdir(finished.root)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{registry_root / 'mlruns' / 'mlflow.db'}")
    missing = call("promote")
    assert missing.exit_code == 3
    assert "`vqmri register`" in missing.output
    assert json.loads(call("register", "--dry-run", "--json").stdout)[GENERATOR]["new"]
    assert client.search_registered_models() == []
    enter_models(client, finished)
    tried = json.loads(call("promote", "--dry-run", "--json").stdout)
    assert tried["outcome"] == "would be promoted"
    assert client.get_registered_model(GENERATOR).aliases == {}
    assert json.loads(call("register", "--json").stdout)[GENERATOR] == {"version": 1, "new": False}
    assert json.loads(call("promote", "--json").stdout)["outcome"] == "promoted"
    assert call("promote", "--dry-run", least=99).exit_code == 3
    failed = call("promote", least=99)
    assert failed.exit_code == 3
    assert "psnr_db ≥ 99" in failed.output

    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    for command in ("register", "promote"):
        silent = call(command)
        assert silent.exit_code == 5
        assert "run the same command again" in silent.output
