from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from vqmri.errors import DivergedError
from vqmri.tracking.tracker import NullTracker
from vqmri.training import loop
from vqmri.training.loop import Plan, Row, Task, fit
from vqmri.training.optim import adamw, warmup_cosine
from vqmri.training.ranks import start_fabric


class Killed(Exception):
    pass


def run(
    folder: Path,
    *,
    die_at: int | None = None,
    nan_at: int | None = None,
    nan_in_gradient_at: int | None = None,
    micro_batch: int | None = None,
    average_decay: float | None = None,
    dropout: float = 0.5,
) -> tuple[nn.Module, list[Row]]:
    """Train a net with dropout on random batches, perhaps with a kill before some step."""
    torch.manual_seed(7)
    first = nn.Linear(4, 8)
    net = nn.Sequential(first, nn.Dropout(dropout), nn.Linear(8, 1))

    def inputs(step: int, slots: range) -> list[Tensor]:
        whole = torch.randn(16, 4, generator=torch.Generator().manual_seed(step))
        return [whole[slots.start : slots.stop]]

    def terms(
        model: nn.Module, step: int, slots: range, inputs: Sequence[Tensor]
    ) -> Mapping[str, Tensor]:
        if step == die_at:
            raise Killed
        loss = model(inputs[0]).square().mean()
        if step == nan_in_gradient_at:
            loss = loss + (first.weight - first.weight.detach()).abs().sqrt().sum()
        return {"loss": loss * float("nan") if step == nan_at else loss}

    task = Task(
        "net", net, inputs, terms, lambda step: [f"s{step}"], lambda step, _: {"seen": step}
    )
    plan = Plan(
        steps=20,
        steps_per_epoch=3,
        batch_size=16,
        rate=warmup_cosine(0.05, 3, 20),
        seed=1,
        micro_batch=micro_batch,
        average_decay=average_decay,
    )
    history = fit(
        task,
        adamw(net, 0.1),
        plan,
        fabric=start_fabric(),
        checkpoints=folder,
        tracker=NullTracker(),
    )
    return net, history


@pytest.fixture(autouse=True)
def _checkpoint_every_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)


@pytest.mark.parametrize("die_at", [0, 1, 3, 7, 10, 19])
def test_a_run_that_was_cut_at_any_step_ends_in_the_same_bits(tmp_path: Path, die_at: int) -> None:
    whole, history = run(tmp_path / "whole")
    with pytest.raises(Killed):
        run(tmp_path / "cut", die_at=die_at)
    resumed, resumed_history = run(tmp_path / "cut")
    assert resumed_history == history
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_history_has_a_row_per_epoch_and_the_last_is_short(tmp_path: Path) -> None:
    _, history = run(tmp_path)
    assert [row["step"] for row in history] == [3, 6, 9, 12, 15, 18, 20]
    assert all(row["seen"] == row["step"] for row in history)


def test_nan_stops_at_once_names_the_subjects_and_keeps_the_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(DivergedError, match=r"step 7, in a batch of subjects \['s7'\]"):
        run(tmp_path, nan_at=7)
    assert [path.name[:13] for path in sorted(tmp_path.iterdir())] == [
        "step-00000003", "step-00000006",
    ]  # fmt: skip


def test_learning_rate_rises_then_falls_to_nothing() -> None:
    rate = warmup_cosine(1.0, 10, 100)
    rates = [rate(step) for step in range(100)]
    assert rates[0] == pytest.approx(0.1, rel=0.01)
    assert max(rates) == pytest.approx(1.0, rel=0.03)
    assert rates.index(max(rates)) == 9
    assert rates[-1] < 0.001


def test_vectors_do_not_decay() -> None:
    model = nn.Linear(3, 3)
    decays = {
        p.ndim: g["weight_decay"] for g in adamw(model, 0.1).param_groups for p in g["params"]
    }
    assert decays == {2: 0.1, 1: 0.0}
