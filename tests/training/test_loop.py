import re
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from vqmri.errors import DivergedError, OutOfMemoryError
from vqmri.protocols import Metrics
from vqmri.tracking.tracker import NullTracker
from vqmri.training import loop, memory
from vqmri.training.average import averaged
from vqmri.training.batches import ahead
from vqmri.training.loop import Plan, Row, Task, fit
from vqmri.training.memory import explained
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
def _checkpoint_after_every_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)


@pytest.mark.parametrize("average_decay", [None, 0.9])
@pytest.mark.parametrize("die_at", [0, 1, 3, 7, 10, 19])
def test_a_run_that_was_cut_at_any_step_ends_in_the_same_bits(
    tmp_path: Path, die_at: int, average_decay: float | None
) -> None:
    whole, history = run(tmp_path / "whole", average_decay=average_decay)
    with pytest.raises(Killed):
        run(tmp_path / "cut", die_at=die_at, average_decay=average_decay)
    resumed, resumed_history = run(tmp_path / "cut", average_decay=average_decay)
    assert resumed_history == history
    for name, value in whole.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_history_has_a_row_per_epoch_and_the_last_is_short(tmp_path: Path) -> None:
    _, history = run(tmp_path)
    assert [row["step"] for row in history] == [3, 6, 9, 12, 15, 18, 20]
    assert all(row["seen"] == row["step"] for row in history)


def test_what_is_read_ahead_does_not_wait_for_the_end_of_an_epoch(tmp_path: Path) -> None:
    net, beyond = nn.Linear(4, 1), threading.Event()

    def inputs(step: int, slots: range) -> list[Tensor]:
        if step == 3:
            beyond.set()
        return [torch.ones(len(slots), 4)]

    def epoch(step: int, _: nn.Module) -> Metrics:
        assert beyond.wait(20)
        return {}

    fit(
        Task(
            "net", net, inputs,
            lambda model, step, slots, found: {"loss": model(found[0]).square().mean()},
            lambda step: [], epoch,
        ),
        adamw(net, 0.1),
        Plan(steps=6, steps_per_epoch=3, batch_size=2, rate=lambda step: 0.1, seed=1),
        fabric=start_fabric(),
        checkpoints=tmp_path,
        tracker=NullTracker(),
    )  # fmt: skip


def test_nan_stops_at_once_names_the_subjects_and_keeps_the_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(DivergedError, match=r"step 7, in a batch of subjects \['s7'\]"):
        run(tmp_path, nan_at=7)
    assert [path.name[:13] for path in sorted(tmp_path.iterdir())] == [
        "step-00000006", "step-00000007",
    ]  # fmt: skip


def test_an_infinite_gradient_of_a_finite_loss_stops_too(tmp_path: Path) -> None:
    with pytest.raises(DivergedError, match=r"gradient's length is (nan|inf) at step 7.*\['s7'\]"):
        run(tmp_path, nan_in_gradient_at=7)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_batch_in_parts_is_the_batch(tmp_path: Path) -> None:
    whole, history = run(tmp_path / "whole", dropout=0.0)
    parts, history_of_parts = run(tmp_path / "parts", dropout=0.0, micro_batch=4)
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(parts.state_dict()[name], value, rtol=1e-4, atol=1e-5)
    assert [row["loss"] for row in history_of_parts] == pytest.approx(
        [row["loss"] for row in history], rel=1e-4
    )


def test_what_is_published_is_the_average_of_the_weights(tmp_path: Path) -> None:
    plain, history = run(tmp_path / "plain")
    averaged, history_of_average = run(tmp_path / "average", average_decay=0.5)
    assert history == history_of_average  # it watches and does not touch
    states: list[dict[str, Tensor]] = []
    for folder in ("plain", "average"):
        newest = max((tmp_path / folder).iterdir())
        states.append(load_file(newest))
    last = {n.removeprefix("model.model."): v for n, v in states[1].items() if "model.model" in n}
    for name, value in plain.state_dict().items():
        assert torch.equal(last[name], value)
    start = "model.average.module."
    mean = {n.removeprefix(start): v for n, v in states[1].items() if n.startswith(start)}
    assert mean.keys() == averaged.state_dict().keys()
    for name, value in averaged.state_dict().items():
        assert torch.equal(mean[name], value)
    assert any(not torch.equal(last[n], v) for n, v in mean.items())


def test_the_average_follows_its_formula() -> None:
    net = nn.Linear(2, 1)
    follower = averaged(net, 0.6)
    expected = net.weight.detach().clone()
    for number in range(12):
        with torch.no_grad():
            net.weight.add_(1.0)
        follower.update_parameters(net)
        decay = min(0.6, (1 + number) / (10 + number)) if number else 0.0  # the first is a copy
        expected = decay * expected + (1 - decay) * net.weight.detach()
        torch.testing.assert_close(next(follower.module.parameters()).detach(), expected)


def test_out_of_memory_says_what_to_lower_with_figures() -> None:
    with (
        pytest.raises(OutOfMemoryError) as caught,
        explained("train_vqvae", torch.device("cpu"), 4, 1),
    ):
        torch.empty(2**50)
    text = str(caught.value)
    assert re.search(r"out of memory on cpu, which has \d+\.\d GiB \(.*can't allocate memory", text)
    assert "At a time 1 of a batch's 4 items pass through the model: set train_vqvae.act" in text
    assert "micro_batch" not in text
    assert caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("name", "at_a_time", "what"),
    [
        ("train_vqvae", 2, r"lower train_vqvae\.micro_batch or set train_vqvae\.activation_check"),
        ("train_prior", 2, r"lower train_prior\.micro_batch, and it goes on from there; or lower"),
        (
            "train_prior",
            1,
            r"model: lower train_prior\.channels or train_prior\.num_layers, and it",
        ),
    ],
)
def test_only_what_can_help_is_advised(name: str, at_a_time: int, what: str) -> None:
    with (
        pytest.raises(OutOfMemoryError, match=what),
        explained(name, torch.device("cpu"), 4, at_a_time),
    ):
        torch.empty(2**50)


def test_another_error_is_passed_on_as_it_is() -> None:
    with pytest.raises(RuntimeError, match="shape"), explained("net", torch.device("cpu"), 4, 1):
        raise RuntimeError("shape mismatch")


def test_inputs_are_made_ahead_in_order_and_an_error_comes_through() -> None:
    made: list[int] = []

    def make(step: int, slots: range) -> int:
        if step == 5:
            raise ValueError("damaged")
        made.append(step)
        return step

    parts = ahead(make, [(step, range(1)) for step in range(8)])
    assert next(parts) == 0
    deadline = time.monotonic() + 30
    while 1 not in made and time.monotonic() < deadline:  # another thread goes on by itself
        time.sleep(0.001)
    assert 1 in made
    assert [next(parts) for _ in range(4)] == [1, 2, 3, 4]
    with pytest.raises(ValueError, match="damaged"):
        next(parts)


def test_a_containers_limit_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(memory, "_CGROUP_LIMITS", (str(limit), str(tmp_path / "none")))
    here = memory.total_memory(torch.device("cpu"))
    limit.write_text("max\n")
    assert memory.total_memory(torch.device("cpu")) == here
    limit.write_text(f"{here // 2}\n")
    assert memory.total_memory(torch.device("cpu")) == here // 2
