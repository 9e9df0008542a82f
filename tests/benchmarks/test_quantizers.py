import json
from pathlib import Path
from typing import Any

import pytest

from benchmarks import timing
from benchmarks.peers import PEER, PEER_SQUARED
from benchmarks.quantizers import main

ROWS = ["ema K=256", "projected K=256 real gain", PEER, PEER_SQUARED, "3D DCT"]
FIGURES = ("psnr", "mse", "usage", "perplexity", "bits_per_voxel")
KEYS = {
    "name", "recipe", "parameters", *FIGURES, "usage_gain", "perplexity_gain", "steps",
    "training_seconds", "seconds_per_step", "ratio_to",
}  # fmt: skip


@pytest.fixture(autouse=True)
def _short_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timing, "ROUNDS", 2)
    monkeypatch.setattr(timing, "STEPS_PER_TURN", 1)


def run(capsys: pytest.CaptureFixture[str], volumes: Path, *names: str) -> dict[str, Any]:
    assert main(["--volumes", str(volumes), "--steps", "2", "--seed", "1", "--only", *names]) == 0
    last: dict[str, Any] = json.loads(capsys.readouterr().out.splitlines()[-1])
    return last


def test_the_last_line_is_json_with_everything(
    capsys: pytest.CaptureFixture[str], volumes: Path
) -> None:
    result = run(capsys, volumes, *ROWS)
    assert {"date", "versions", "threads", "steps", "seed", "volumes"} <= result.keys()
    assert (result["steps"], result["seed"]) == (2, 1)
    rows = {row["name"]: row for row in result["rows"]}
    assert all(row.keys() == KEYS for row in rows.values())
    assert [name for name in rows if not name.startswith("3D DCT")] == ROWS[:-1]
    for name in ROWS[:-1]:
        row = rows[name]
        assert row["seconds_per_step"] > 0
        assert set(row["ratio_to"]) == {PEER, PEER_SQUARED}
        assert row["steps"] == 2
        assert 0 < row["usage"] <= 1
        assert row["perplexity"] >= 1
    assert rows[PEER]["ratio_to"][PEER] == 1
    references = [row for name, row in rows.items() if name.startswith("3D DCT")]
    assert [round(row["bits_per_voxel"] * 64) for row in references] == [8, 11, 40]
    assert references[0]["psnr"] < references[1]["psnr"] < references[2]["psnr"]


def test_figures_depend_on_the_seed_alone(
    capsys: pytest.CaptureFixture[str], volumes: Path
) -> None:
    """Not on what else is run: each row has its own first weights and the same batches."""
    alone = run(capsys, volumes, "ema K=256 kmeans")["rows"][-1]
    after_others = run(capsys, volumes, PEER, "codebook_loss K=256", "ema K=256 kmeans")["rows"]
    again = next(row for row in after_others if row["name"] == "ema K=256 kmeans")
    assert [alone[key] for key in FIGURES] == [again[key] for key in FIGURES]


def test_missing_volumes_are_an_input_error(
    capsys: pytest.CaptureFixture[str], volumes: Path
) -> None:
    assert main(["--volumes", str(volumes / "nothing")]) == 3
    assert "vqmri ingest" in capsys.readouterr().err
