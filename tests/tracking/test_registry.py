"""Aliases, weights and figures of versions, in a real store; the versions hold no model."""

import json
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest
from mlflow.exceptions import MlflowException

from vqmri.errors import InputError
from vqmri.tracking import registry
from vqmri.tracking.mlflow import weights_tags
from vqmri.tracking.sender import EXPERIMENT

NAME = "vqmri-generator"


@pytest.fixture
def client(registry_root: Path) -> Iterator[mlflow.MlflowClient]:
    with registry.answering(registry_root):
        client = mlflow.MlflowClient()
        client.create_registered_model(NAME)
        yield client
        client.delete_registered_model(NAME)


def folders(place: Path, **weights: str) -> dict[str, Path]:
    """Folders of models, as far as the registry looks at them."""
    for name, value in weights.items():
        (place / name).mkdir(exist_ok=True)
        (place / name / "model.json").write_text(json.dumps({"about": {"weights": value}}))
    return {name: place / name for name in weights}


def version(client: mlflow.MlflowClient, of: dict[str, Path]) -> int:
    made = client.create_model_version(NAME, "nowhere", tags=weights_tags(of))
    return int(made.version)


def aliases(client: mlflow.MlflowClient) -> dict[str, int]:
    return {key: int(value) for key, value in client.get_registered_model(NAME).aliases.items()}


def test_a_version_is_found_by_all_its_weights_and_the_newest_is_first(
    client: mlflow.MlflowClient, tmp_path: Path
) -> None:
    a, b = "a" * 64, "b" * 64
    first = version(client, folders(tmp_path, vqvae=a, prior=a))
    other = version(client, folders(tmp_path, vqvae=a, prior=b))
    again = version(client, folders(tmp_path, vqvae=a, prior=a))
    client.create_model_version(NAME, "nowhere")  # of an earlier time, without these tags
    assert registry.versions_with(NAME, folders(tmp_path, vqvae=a, prior=a)) == [again, first]
    assert registry.versions_with(NAME, folders(tmp_path, vqvae=a, prior=b)) == [other]
    assert registry.versions_with(NAME, folders(tmp_path, vqvae=b, prior=b)) == []
    assert registry.versions_with("vqmri-vqvae", folders(tmp_path, vqvae=a)) == []


def test_ten_versions_are_in_the_order_of_numbers(
    client: mlflow.MlflowClient, tmp_path: Path
) -> None:
    same = folders(tmp_path, vqvae="c")
    numbers = [version(client, same) for _ in range(11)]
    assert registry.versions_with(NAME, same) == numbers[::-1]


def test_the_former_champion_is_previous(client: mlflow.MlflowClient, tmp_path: Path) -> None:
    one, two, three = (version(client, folders(tmp_path, vqvae=w)) for w in "abc")
    client.set_registered_model_alias(NAME, "challenger", str(three))
    assert registry.champion_of(NAME) is None
    assert registry.make_champion(NAME, one) is None
    assert aliases(client) == {"challenger": three, "champion": one}
    assert registry.make_champion(NAME, two) == one
    assert aliases(client) == {"challenger": three, "champion": two, "previous": one}
    assert registry.make_champion(NAME, three) == two
    assert aliases(client) == {"challenger": three, "champion": three, "previous": two}
    assert registry.champion_of(NAME) == three


def test_cut_off_between_the_aliases_the_champion_stays(
    client: mlflow.MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one, two = (version(client, folders(tmp_path, vqvae=w)) for w in "ab")
    registry.make_champion(NAME, one)
    move = mlflow.MlflowClient.set_registered_model_alias

    def only_previous(self: mlflow.MlflowClient, name: str, alias: str, number: str) -> None:
        if alias == "champion":
            raise MlflowException("gone")
        move(self, name, alias, number)

    with monkeypatch.context() as patch:
        patch.setattr(mlflow.MlflowClient, "set_registered_model_alias", only_previous)
        with pytest.raises(MlflowException, match="gone"):
            registry.make_champion(NAME, two)
    assert aliases(client) == {"champion": one, "previous": one}
    assert registry.make_champion(NAME, two) == one
    assert aliases(client) == {"champion": two, "previous": one}


def test_what_was_measured_is_read_as_it_was_noted(
    client: mlflow.MlflowClient, tmp_path: Path
) -> None:
    one, two = (version(client, folders(tmp_path, vqvae=w)) for w in "ab")
    values = {"metrics": {"psnr_db": 1 / 3, "psnr_db_low": 1e-300}, "volumes": "d" * 64}
    assert registry.measured(NAME, one) == {}
    registry.note_measured(NAME, one, {"metrics": {"psnr_db": 0.0}})
    registry.note_measured(NAME, one, values)
    assert registry.measured(NAME, one) == values
    assert registry.measured(NAME, two) == {}


def test_a_registry_that_does_not_answer_is_an_error_of_storage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")  # nobody listens there
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with (
        pytest.raises(OSError, match=r"does not answer.*the same command"),
        registry.answering(tmp_path),
    ):
        registry.champion_of(NAME)


def test_so_is_a_store_that_fails_underneath(
    registry_root: Path, client: mlflow.MlflowClient
) -> None:
    with sqlite3.connect(registry_root / "mlruns" / "mlflow.db") as database:
        database.execute("ALTER TABLE registered_model_aliases RENAME TO hidden")
        database.commit()
        with pytest.raises(OSError, match="does not answer"), registry.answering(registry_root):
            registry.make_champion(NAME, 1)
        database.execute("ALTER TABLE hidden RENAME TO registered_model_aliases")
    database.close()


def test_an_error_of_the_caller_is_its_own(registry_root: Path) -> None:
    with pytest.raises(ValueError, match="mine"), registry.answering(registry_root):
        raise ValueError("mine")


def test_who_only_reads_makes_no_experiment_and_needs_none(
    registry_root: Path, client: mlflow.MlflowClient
) -> None:
    def read() -> None:
        with (
            pytest.raises(InputError, match="no such model"),
            registry.fetched(f"models:/{NAME}@champion", registry_root),
        ):
            pytest.fail("there is none")

    read()
    assert client.get_experiment_by_name(EXPERIMENT) is None
    client.delete_experiment(client.create_experiment(EXPERIMENT))
    read()
