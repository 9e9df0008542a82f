from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import REPO, tiny_values
from vqmri.errors import ParamsError
from vqmri.params import Params

PRESETS = sorted((REPO / "presets").glob("*.yaml"))


def load(values: Any, folder: Path) -> Params:
    path = folder / "params.yaml"
    path.write_text(yaml.safe_dump(values))
    return Params.load(path)


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_every_preset_is_valid(path: Path) -> None:
    assert Params.load(path).sample.count >= 8


def test_the_active_params_are_the_phantom_preset() -> None:
    assert Params.load(REPO / "params.yaml") == Params.load(REPO / "presets/phantom.yaml")


def test_all_faults_are_named_at_once_with_path_value_and_what_is_allowed(tmp_path: Path) -> None:
    values = tiny_values()
    values["sample"]["temperature"] = -1.0
    values["train_vqvae"]["quantizer"]["decay"] = 2
    values["train_prior"]["dropuot"] = 0.1
    del values["encode"]["items_per_shard"]
    values["ingest"]["source"]["kind"] = "dicom"
    values["ingest"]["shape"] = [16, 22, 16]
    with pytest.raises(ParamsError) as caught:
        load(values, tmp_path)
    text = str(caught.value)
    assert "6 faults" in text
    assert "ingest.shape = [16, 22, 16]: every axis must be a multiple of 4" in text
    assert "sample.temperature = -1.0: Input should be greater than 0" in text
    assert "train_vqvae.quantizer.decay = 2: Input should be less than 1" in text
    assert "train_prior.dropuot = 0.1: no such parameter" in text
    assert "encode.items_per_shard: this parameter is missing" in text
    assert "'phantom'" in text
    assert "'nifti'" in text
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("section", "changes", "expected"),
    [
        ("ingest", {"shape": [16, 22, 16]}, "multiple of 4"),
        ("ingest", {"percentiles": [99.0, 1.0]}, "ingest.percentiles = [99.0, 1.0]: the first"),
        ("train_vqvae", {"channels": [8]}, "with 1 channels downsampling is among [2]"),
        ("train_vqvae", {"learning_rate": float("inf")}, "finite number"),
        ("sample", {"seed": 2**70}, "sample.seed"),
        ("train_vqvae", {"channels": [12, 16]}, "train_vqvae.channels.0 = 12"),
        (
            "train_vqvae",
            {"levels": [{"downsampling": 4, "num_embeddings": 8}] * 2},
            "must rise, finest level first",
        ),
        (
            "train_vqvae",
            {"levels": [{"downsampling": 4, "num_embeddings": 100000}]},
            "train_vqvae.levels.0.num_embeddings = 100000",
        ),
    ],
)
def test_what_does_not_fit_together_is_refused(
    tmp_path: Path, section: str, changes: dict[str, Any], expected: str
) -> None:
    values = tiny_values()
    values[section] |= changes
    with pytest.raises(ParamsError) as caught:
        load(values, tmp_path)
    assert expected in str(caught.value)


def test_the_path_of_a_sources_fault_is_that_of_the_file(tmp_path: Path) -> None:
    values = tiny_values()
    values["ingest"]["source"]["count"] = 1
    with pytest.raises(ParamsError, match=r"ingest\.source\.count = 1"):
        load(values, tmp_path)


def test_missing_file_and_broken_yaml(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match="vqmri init"):
        Params.load(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_text("a: [1,")
    with pytest.raises(ParamsError, match="not YAML"):
        Params.load(tmp_path / "params.yaml")


def every_field(schema: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    found = list(schema.get("properties", {}).items())
    for name, definition in schema.get("$defs", {}).items():
        found += [(f"{name}.{f}", v) for f, v in definition.get("properties", {}).items()]
    return found


def test_every_field_has_a_description() -> None:
    for name, field in every_field(Params.model_json_schema()):
        nested = "$ref" in field or "discriminator" in field or "const" in field
        assert nested or field.get("description"), name
