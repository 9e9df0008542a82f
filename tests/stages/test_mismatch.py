"""Outputs that do not belong together are refused, with both fingerprints."""

import re
import shutil
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from tests.conftest import tiny_values
from tests.faults import Record, tell
from vqmri.cli import main
from vqmri.layout import Layout
from vqmri.params import Params
from vqmri.stages import STAGES

FINGERPRINT = r"\(([0-9a-f]{16})\)|VQ-VAE ([0-9a-f]{16})|is ([0-9a-f]{16})"


def made(stage: str, data: Layout, **changes: Any) -> None:
    module, name = STAGES[stage].split(":")
    params = Params.model_validate(tiny_values() | changes)
    getattr(import_module(module), name)(params, data)


def other_vqvae(data: Layout) -> None:
    made("train_vqvae", data, seed=1)


def other_split(data: Layout) -> None:
    made("ingest", data, seed=1)


def other_prior(data: Layout) -> None:
    made("train_prior", data, seed=1)


def other_codes(data: Layout) -> None:
    made("encode", data, encode={"items_per_shard": 4})


@pytest.mark.faults
@pytest.mark.parametrize(
    ("change", "stage"),
    [
        (other_vqvae, "train_prior"),
        (other_vqvae, "sample"),
        (other_vqvae, "study"),
        (other_vqvae, "evaluate"),
        (other_split, "encode"),
        (other_split, "study"),
        (other_split, "use"),
        (other_split, "evaluate"),
        (other_prior, "use"),
        (other_prior, "evaluate"),
        (other_codes, "study"),
        (other_codes, "evaluate"),
    ],
)
def test_a_stage_refuses_what_was_not_made_for_it(
    change: Any,
    stage: str,
    copy_of_finished: Layout,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Record,
) -> None:
    data = copy_of_finished
    change(data)
    shutil.rmtree(data.work, ignore_errors=True)
    before = {path: path.read_bytes() for path in data.data.rglob("*") if path.is_file()}
    monkeypatch.chdir(data.root)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    Path("params.yaml").write_text(yaml.safe_dump(tiny_values()))
    done = CliRunner().invoke(main, [stage])
    assert done.exit_code == 7, done.output
    said = done.output.split("vqmri: ")[-1]
    assert len({"".join(found) for found in re.findall(FINGERPRINT, said)}) == 2, said
    assert all(path.read_bytes() == content for path, content in before.items())
    tell(record_property, "outputs that do not belong together", 1, 1,
         "exit 7, both fingerprints told, nothing changed")  # fmt: skip
