from pathlib import Path

import pytest
import torch

from benchmarks import by_time
from benchmarks.by_time import PRESET, Clock, Point, build_by_time, num_parameters, parser, train
from benchmarks.contender import Batches, Contender
from benchmarks.volumes import Split, read_split
from vqmri.cli import PRESETS
from vqmri.params import Params

SETTINGS = Params.load(PRESETS / f"{PRESET}.yaml").train_vqvae.model_copy(
    update={"channels": [8, 16], "num_res_blocks": [0, 1], "augment": None, "average_decay": None}
)
CPU = torch.device("cpu")


def start(split: Split, clock: Clock, *, adversarial_cost: float = 0.0) -> Contender:
    settings = SETTINGS.model_copy(update={"adversarial_cost": adversarial_cost})
    contender = build_by_time("ours", settings, clock, spacing=split.spacing, seed=0, device=CPU)
    contender.model(torch.from_numpy(split.train.volumes[:2]))  # or its codebook is zeros
    return contender


def test_the_clock_stands_still_between_steps_and_points_are_even(
    volumes: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(by_time, "take_step", lambda *_: 0.25)
    split, clock = read_split(volumes), Clock(8.75)
    batches = Batches(split.train, 2, 0, CPU)
    curve, figures = train(start(split, clock), clock, batches, split.held_out)
    assert clock.gone == 8.75
    assert [point.steps for point in curve] == [3, 6, 9, 12, 15, 18, 21, 24, 27, 30, 33, 35]
    assert curve[-1] == Point(1.0, 35, figures["psnr"])


@pytest.mark.parametrize(("points", "shares"), [(12, [0.4, 0.8, 1.0]), (1, [1.0])])
def test_steps_longer_than_a_part_leave_points_out(
    volumes: Path, monkeypatch: pytest.MonkeyPatch, points: int, shares: list[float]
) -> None:
    monkeypatch.setattr(by_time, "take_step", lambda *_: 4.0)
    split, clock = read_split(volumes), Clock(10.0)
    batches = Batches(split.train, 2, 0, CPU)
    curve, _ = train(start(split, clock), clock, batches, split.held_out, points=points)
    assert [point.share for point in curve] == shares
    assert curve[-1].steps == 3


def test_an_opponent_is_no_part_of_the_size(volumes: Path) -> None:
    split = read_split(volumes)
    alone, opposed = (start(split, Clock(1.0), adversarial_cost=c) for c in (0.0, 0.1))
    assert num_parameters(alone) == num_parameters(opposed)
    assert len(list(alone.model.parameters())) < len(list(opposed.model.parameters()))


@pytest.mark.parametrize("minutes", ["0", "-1", "nan"])
def test_no_time_is_refused(minutes: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parser("training", minutes=5.0).parse_args(["--minutes", minutes])
    assert "above 0" in capsys.readouterr().err
