import json
import logging
import re
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import run_stages, tiny_values
from vqmri.build.training import deciding
from vqmri.errors import OutOfMemoryError, ParamsError
from vqmri.layout import Layout
from vqmri.params import Params
from vqmri.stages.train_vqvae import train_vqvae
from vqmri.training import loop

EVERYTHING = {
    "augment": {
        "flips": [0], "rotation": 10.0, "scaling": 0.1, "translation": 10.0, "contrast": 0.2,
    },
    "patch": [16, 16, 16],
    "activation_checkpointing": True,
    "micro_batch": 2,
    "average_decay": 0.9,
    "spectral_cost": 0.1,
    "adversarial_cost": 0.01,
}  # fmt: skip


def values_with(**changes: Any) -> dict[str, Any]:
    values = tiny_values()
    values["train_vqvae"] |= changes
    return values


def ingested(finished: Layout, folder: Path) -> Layout:
    data = Layout(folder)
    shutil.copytree(finished.output("volumes"), data.output("volumes"))
    return data


def test_all_stages_run_with_everything_that_can_be_asked_for(tmp_path: Path) -> None:
    data, metrics = run_stages(values_with(**EVERYTHING), tmp_path)
    assert all(np.isfinite(value) for value in metrics.values())
    assert metrics["psnr_db_foreground"] > 3
    assert not any(data.work.glob("vqvae-*"))


def test_a_collapsed_codebook_is_warned_of(
    finished: Layout, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    values = values_with(steps=1, levels=[{"downsampling": 4, "num_embeddings": 4096}])
    with caplog.at_level(logging.WARNING):
        train_vqvae(Params.model_validate(values), ingested(finished, tmp_path))
    (record,) = caplog.records
    assert "of the codes of level_0 are in use at step 1: the codebook has collapsed" in str(
        record.getMessage()
    )


@pytest.mark.parametrize("warmup", [0, 1])
def test_a_collapse_is_told_once_it_has_warmed_up_and_at_the_end(
    warmup: int, finished: Layout, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    levels = [{"downsampling": 4, "num_embeddings": 65536}]
    params = Params.model_validate(values_with(steps=20, warmup=warmup, levels=levels))
    with caplog.at_level(logging.WARNING):
        train_vqvae(params, ingested(finished, tmp_path))
    told = [re.findall(r"at step (\d+)", record.getMessage()) for record in caplog.records]
    history = json.loads((tmp_path / "data/vqvae/history.json").read_bytes())
    assert len(history) > 2
    assert told == [[str(int(history[0]["step"]))], ["20"]]


def test_after_out_of_memory_it_goes_on_with_a_smaller_part(
    finished: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, seed = ingested(finished, tmp_path), loop.step_seed  # type: ignore[attr-defined]
    steps: list[int] = []

    def greedy(*words: int) -> int:
        steps.append(words[1])
        if words[1] == 20 and len(steps) == 21:
            raise MemoryError
        return int(seed(*words))

    monkeypatch.setattr(loop, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    monkeypatch.setattr(loop, "step_seed", greedy)
    with pytest.raises(OutOfMemoryError):
        train_vqvae(Params.model_validate(tiny_values()), data)
    lowered = values_with(micro_batch=1, activation_checkpointing=True)
    train_vqvae(Params.model_validate(lowered), data)
    assert steps[:21] == list(range(21))
    assert 0 < steps[21] <= 20
    assert steps[21:] == list(range(steps[21], lowered["train_vqvae"]["steps"]))


def test_how_much_is_in_memory_at_a_time_decides_nothing() -> None:
    def decided(**changes: Any) -> dict[str, Any]:
        return deciding(Params.model_validate(values_with(**changes)).train_vqvae)

    assert decided(micro_batch=2, activation_checkpointing=True) == decided()
    assert decided(batch_size=2) != decided()


def test_a_healthy_codebook_is_not(
    finished: Layout, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    train_vqvae(Params.model_validate(tiny_values()), ingested(finished, tmp_path))
    assert not caplog.records


def test_out_of_memory_ends_the_stage_and_loses_nothing(
    finished: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = ingested(finished, tmp_path)
    seed = loop.step_seed  # type: ignore[attr-defined]

    def greedy(*words: int) -> int:
        if words[1] == 20:
            np.empty(2**60, dtype=np.uint8)
        return int(seed(*words))

    monkeypatch.setattr(loop, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)
    monkeypatch.setattr(loop, "step_seed", greedy)
    params = Params.model_validate(tiny_values())
    with pytest.raises(OutOfMemoryError, match=r"train_vqvae: out of memory on cpu.*micro_batch"):
        train_vqvae(params, data)
    assert not data.output("vqvae").exists()
    assert list(data.work.glob("vqvae-*/state/step-*"))
    monkeypatch.setattr(loop, "step_seed", seed)
    train_vqvae(params, data)
    expected = (finished.output("vqvae") / "MANIFEST.json").read_bytes()
    assert (data.output("vqvae") / "MANIFEST.json").read_bytes() == expected


@pytest.mark.parametrize("patch", [[16, 16], [16, 18, 16], [32, 16, 16]])
def test_a_patch_that_is_no_piece_of_a_volume_is_refused(patch: list[int], tmp_path: Path) -> None:
    import yaml

    path = tmp_path / "params.yaml"
    path.write_text(yaml.safe_dump(values_with(patch=patch)))
    with pytest.raises(ParamsError, match=r"train_vqvae.patch = .*needs 3 multiples of 4"):
        Params.load(path)


def test_a_part_that_does_not_divide_the_batch_is_refused() -> None:
    with pytest.raises(ValueError, match="micro_batch = 3 must divide batch_size = 4"):
        Params.model_validate(values_with(micro_batch=3))


def test_residual_blocks_are_as_many_as_scales() -> None:
    with pytest.raises(ValueError, match="1 entries, but channels has 2"):
        Params.model_validate(values_with(num_res_blocks=[1]))
