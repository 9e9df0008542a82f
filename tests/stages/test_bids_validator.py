"""The BIDS validator's verdict on a folder of samples."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.conftest import tiny_values
from vqmri.layout import Layout
from vqmri.params import Params
from vqmri.stages.sample import sample

VALIDATOR = Path(sys.executable).with_name("bids-validator-deno")
TOLD = {"TOO_FEW_AUTHORS", "SIDECAR_KEY_RECOMMENDED"}
"""Warnings that stand: a synthetic scan has one author, and neither scanner nor sequence."""


def verdict(folder: Path) -> dict[str, Any]:
    done = subprocess.run(
        [str(VALIDATOR), "--format", "json", str(folder)],
        capture_output=True, text=True, check=False, timeout=120,
    )  # fmt: skip
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def codes(folder: Path, severity: str) -> set[str]:
    issues = verdict(folder)["issues"]["issues"]
    return {issue["code"] for issue in issues if issue["severity"] == severity}


def test_samples_are_a_valid_data_set(copy_of_finished: Layout) -> None:
    values = tiny_values()
    values["sample"] |= {"count": 3, "covariates": {"age": [30, 60], "sex": "F"}}
    sample(Params.model_validate(values), copy_of_finished)
    folder = copy_of_finished.output("samples")
    assert codes(folder, "error") == set()
    assert codes(folder, "warning") <= TOLD
    next(folder.glob("sub-*/anat/*.json")).unlink()
    assert codes(folder, "error")
