import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from benchmarks import by_time, timing, training
from benchmarks.by_time import POINTS, PRESET, Clock, Point, num_parameters
from benchmarks.contender import Batches, Contender, take_step
from benchmarks.peers import PEER, PEER_FAST
from benchmarks.training import (
    EQUAL_WORK,
    NAMES,
    NUM_RES_BLOCKS,
    RECIPE,
    build,
    headline,
    main,
    multiply_adds,
    prepare_steps,
    settings_of,
    time_to_peer,
)
from benchmarks.volumes import read_split, similarity
from vqmri.cli import PRESETS
from vqmri.errors import DivergedError
from vqmri.params import Augment, Params

SETTINGS = Params.load(PRESETS / f"{PRESET}.yaml").train_vqvae
CPU = torch.device("cpu")
SPACING = (1.0, 1.0, 1.0)
HEADLINE = {
    "step_ratio", "step_ratio_fast", "flops_ratio", "parameters_ratio", "memory_ratio",
    "equal_work_psnr_gain_db", "recipe_flops_ratio", "recipe_parameters_ratio", "psnr_gain_db",
    "psnr_gain_fast_db", "time_to_peer",
}  # fmt: skip
ABOUT = {
    "benchmark", "date", "preset", "minutes", "seed", "batch_size", "volumes", "train_volumes",
    "held_out_volumes", "space", "num_res_blocks", "device", "threads", "versions", "rows",
}  # fmt: skip
KEYS = {
    "name", "recipe", "parameters", "steps", "training_seconds", "psnr", "mse", "ssim", "usage",
    "perplexity", "curve", "seconds_per_step", "ratio_to", "multiply_adds", "memory_mb",
}  # fmt: skip
CURVE = [Point(0.25, 1, 20.0), Point(0.5, 2, 24.0), Point(0.75, 3, 22.0), Point(1.0, 4, 28.0)]


@pytest.fixture
def light(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few turns, and the steps that take memory in this process."""

    def in_place(prepare: Callable[[], Callable[[], object]]) -> float:
        prepare()()
        return 1.0

    monkeypatch.setattr(timing, "ROUNDS", 2)
    monkeypatch.setattr(timing, "STEPS_PER_TURN", 1)
    monkeypatch.setattr(training, "MEMORY_STEPS", 1)
    monkeypatch.setattr(training, "added_memory", in_place)


@pytest.mark.parametrize(
    ("target", "share"),
    [(19.0, 0.25), (20.0, 0.25), (21.0, 0.3125), (24.0, 0.5), (25.0, 0.875), (28.0, 1.0)],
)
def test_the_time_to_a_psnr_is_interpolated_to_the_first_crossing(
    target: float, share: float
) -> None:
    assert time_to_peer(CURVE, target) == pytest.approx(share)


def test_a_psnr_that_is_never_reached_has_no_time() -> None:
    assert time_to_peer(CURVE, 28.1) is None
    assert time_to_peer([], 20.0) is None


def test_ours_is_as_large_as_the_peer_and_one_does_equal_work(volumes: Path) -> None:
    split = read_split(volumes)
    batch = torch.from_numpy(split.train.volumes[:2])
    work, sizes = {}, {}
    for name in NAMES:
        contender = build(name, SETTINGS, Clock(1.0), spacing=SPACING, seed=0, device=CPU)
        sizes[name], work[name] = num_parameters(contender), multiply_adds(contender, batch)
    assert sizes[EQUAL_WORK] == pytest.approx(sizes[PEER], rel=0.1)
    assert sizes[RECIPE] == pytest.approx(sizes[PEER], rel=0.1)
    assert work[EQUAL_WORK] == pytest.approx(work[PEER], rel=0.1)
    assert work[PEER_FAST] == work[PEER]
    assert sizes[PEER_FAST] == sizes[PEER]
    assert NUM_RES_BLOCKS[EQUAL_WORK] != NUM_RES_BLOCKS[RECIPE]


def test_all_have_the_same_grid_and_codebook() -> None:
    [level] = SETTINGS.levels
    for name in NAMES:
        contender = build(name, SETTINGS, Clock(1.0), spacing=SPACING, seed=0, device=CPU)
        assert contender.bits_per_voxel((16, 24, 16)) == math.log2(level.num_embeddings) / 64
        assert contender.name == name


def test_ours_are_for_a_short_training() -> None:
    augment = Augment(rotation=1.0, scaling=0.1, translation=1.0, contrast=0.1)
    preset = SETTINGS.model_copy(update={"augment": augment, "average_decay": 0.999})
    equal, recipe = (settings_of(name, preset) for name in (EQUAL_WORK, RECIPE))
    for settings in (equal, recipe):
        assert (settings.augment, settings.average_decay) == (None, None)
        assert settings.quantizer == preset.quantizer
        assert settings.channels == [64, 64]
    assert equal.num_res_blocks != recipe.num_res_blocks
    for settings in (equal, recipe):  # what is copied is not checked
        assert type(settings).model_validate(settings.model_dump()) == settings


def test_the_rate_of_ours_follows_the_clock() -> None:
    clock = Clock(budget=10.0)
    ours, peer = (
        build(name, SETTINGS, clock, spacing=SPACING, seed=0, device=CPU).rate
        for name in (RECIPE, PEER)
    )
    peak, warm = SETTINGS.learning_rate, SETTINGS.warmup / SETTINGS.steps
    assert ours(0) == pytest.approx(peak / SETTINGS.warmup)
    assert ours(1000) == ours(0)
    constant = peer(0)
    clock.gone = 10 * warm
    assert ours(0) == pytest.approx(peak, rel=0.01)
    clock.gone = 5.0
    assert ours(0) == pytest.approx(peak / 2, rel=0.01)
    clock.gone = 11.0
    assert (clock.share, ours(0)) == (1.0, 0.0)
    assert peer(0) == constant


def test_similarity_of_a_volume_to_itself_is_one(volumes: Path) -> None:
    side = read_split(volumes).held_out
    assert similarity(side.volumes, side) == pytest.approx(1)
    noisy = side.volumes + np.random.default_rng(0).normal(0, 0.2, side.volumes.shape)
    found = similarity(noisy.astype(np.float32), side)
    assert found is not None
    assert found < 0.9


def test_the_channels_come_last_in_memory() -> None:
    fast = build(PEER_FAST, SETTINGS, Clock(1.0), spacing=SPACING, seed=0, device=CPU)
    kernels = [p for p in fast.model.parameters() if p.ndim == 5]
    assert all(p.is_contiguous(memory_format=torch.channels_last_3d) for p in kernels)
    plain = build(PEER, SETTINGS, Clock(1.0), spacing=SPACING, seed=0, device=CPU)
    assert all(p.is_contiguous() for p in plain.model.parameters())


def test_the_figures_are_of_the_right_rows() -> None:
    def row(name: str, value: float) -> dict[str, Any]:
        return {
            "name": name,
            "psnr": value,
            "parameters": value,
            "multiply_adds": 10 * value,
            "memory_mb": value,
            "curve": [Point(0.5, 1, value - 4)._asdict(), Point(1.0, 2, value)._asdict()],
            "ratio_to": {EQUAL_WORK: value / 4},
        }

    rows = [row(name, value) for name, value in zip(NAMES, (1.0, 2.0, 4.0, 5.0), strict=True)]
    assert headline(rows) == {
        "step_ratio": 0.25, "step_ratio_fast": 0.5, "flops_ratio": 4, "parameters_ratio": 4,
        "memory_ratio": 4, "equal_work_psnr_gain_db": 3, "recipe_flops_ratio": 5,
        "recipe_parameters_ratio": 5, "psnr_gain_db": 4, "psnr_gain_fast_db": 3,
        "time_to_peer": 0.625,
    }  # fmt: skip


@pytest.mark.usefixtures("light")
def test_the_last_line_is_json_with_everything(
    capsys: pytest.CaptureFixture[str], volumes: Path
) -> None:
    assert main(["--volumes", str(volumes), "--minutes", "0.005", "--seed", "1"]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result.keys() == HEADLINE | ABOUT
    assert (result["minutes"], result["seed"]) == (0.005, 1)
    assert tuple(row["name"] for row in result["rows"]) == NAMES
    for row in result["rows"]:
        assert row.keys() == KEYS
        assert row["training_seconds"] >= 0.3
        assert 0 < row["usage"] <= 1 <= row["perplexity"]
        assert row["curve"][-1] == {"share": 1.0, "steps": row["steps"], "psnr": row["psnr"]}
        assert len(row["curve"]) <= POINTS
        assert row["ratio_to"][row["name"]] == 1
    for key in HEADLINE - {"time_to_peer"}:
        assert isinstance(result[key], float), key


def test_steps_before_the_measured_ones_are_of_a_twin(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training, "MEMORY_STEPS", 1)
    seen: list[tuple[int, ...]] = []

    def watched(contender: Contender, batches: Batches, step: int) -> float:
        seen.append(batches.side.volumes.shape)
        return take_step(contender, batches, step)

    monkeypatch.setattr(training, "take_step", watched)
    call = prepare_steps(RECIPE, SETTINGS, (16, 24, 16), SPACING)
    assert seen == [(SETTINGS.batch_size, 1, 16, 16, 16)]
    call()
    assert seen[1:] == [(SETTINGS.batch_size, 1, 16, 24, 16)]


def test_missing_volumes_are_an_input_error(
    capsys: pytest.CaptureFixture[str], volumes: Path
) -> None:
    assert main(["--volumes", str(volumes / "nothing")]) == 3
    assert "vqmri ingest" in capsys.readouterr().err


def test_a_loss_that_is_not_finite_ends_the_run(
    capsys: pytest.CaptureFixture[str], volumes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def diverge(*_: object) -> float:
        raise DivergedError("the loss is nan")

    monkeypatch.setattr(by_time, "take_step", diverge)
    assert main(["--volumes", str(volumes)]) == DivergedError.exit_code
    assert "the loss is nan" in capsys.readouterr().err
