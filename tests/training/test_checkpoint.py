from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn, optim

from vqmri.errors import IntegrityError
from vqmri.training.checkpoint import load_checkpoint, save_checkpoint
from vqmri.training.optim import Muon, adamw


def trained(
    steps: int, build: Callable[[nn.Module, float], optim.Optimizer] = Muon
) -> tuple[nn.Module, optim.Optimizer]:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    optimiser = build(model, 0.1)
    for group in optimiser.param_groups:
        group["lr"] = 0.1
    for _ in range(steps):
        optimiser.zero_grad()
        model(torch.randn(8, 3)).square().sum().backward()
        optimiser.step()
    return model, optimiser


@pytest.mark.parametrize("build", [Muon, adamw])
def test_everything_comes_back(
    build: Callable[[nn.Module, float], optim.Optimizer], tmp_path: Path
) -> None:
    model, optimiser = trained(5, build)
    save_checkpoint(tmp_path, 5, model, optimiser, [{"loss": 0.1}], {"loss": 0.1 + 0.2})
    other, other_optimiser = trained(1, build)
    assert load_checkpoint(tmp_path, other, other_optimiser) == (
        5,
        [{"loss": 0.1}],
        {"loss": 0.1 + 0.2},
    )
    for name, value in model.state_dict().items():
        assert torch.equal(value, other.state_dict()[name])
    for index, state in optimiser.state_dict()["state"].items():
        for key, value in state.items():
            assert torch.equal(value, other_optimiser.state_dict()["state"][index][key])


def test_none_changes_nothing(tmp_path: Path) -> None:
    model, optimiser = trained(1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    assert load_checkpoint(tmp_path, model, optimiser) == (0, [], {})
    assert all(torch.equal(v, before[n]) for n, v in model.state_dict().items())


def test_two_are_kept_and_the_newest_is_taken(tmp_path: Path) -> None:
    for steps in (1, 2, 3):
        save_checkpoint(tmp_path, steps, *trained(steps), [], {})
    assert len(list(tmp_path.iterdir())) == 2
    assert load_checkpoint(tmp_path, *trained(0))[0] == 3


def test_damaged_ones_do_not_count_among_the_two(tmp_path: Path) -> None:
    for steps in (2, 4):
        save_checkpoint(tmp_path, steps, *trained(steps), [], {})
    (newest,) = tmp_path.glob("step-00000004-*")
    newest.write_bytes(newest.read_bytes()[:-1] + b"x")
    assert load_checkpoint(tmp_path, *trained(0))[0] == 2
    save_checkpoint(tmp_path, 3, *trained(3), [], {})
    assert [path.name[:13] for path in sorted(tmp_path.iterdir())] == [
        "step-00000002",
        "step-00000003",
    ]


def test_processes_take_what_the_first_one_names(tmp_path: Path) -> None:
    for steps in (1, 2):
        save_checkpoint(tmp_path, steps, *trained(steps), [], {})
    oldest = min(path.name for path in tmp_path.iterdir())
    assert load_checkpoint(tmp_path, *trained(0), agree=lambda _: oldest)[0] == 1
    assert load_checkpoint(tmp_path, *trained(0), agree=lambda _: None)[0] == 0
    model, optimiser = trained(0)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    (tmp_path / oldest).write_bytes(b"damaged")
    with pytest.raises(IntegrityError, match=r"damaged or not there"):
        load_checkpoint(tmp_path, model, optimiser, agree=lambda _: oldest)
    assert all(torch.equal(v, before[n]) for n, v in model.state_dict().items())


@pytest.mark.parametrize("where", [0.01, 0.5, 0.99])
def test_a_damaged_newest_one_is_passed_over(tmp_path: Path, where: float) -> None:
    for steps in (1, 2):
        save_checkpoint(tmp_path, steps, *trained(steps), [], {})
    newest = max(tmp_path.iterdir())
    data = bytearray(newest.read_bytes())
    data[int(where * len(data))] ^= 4
    newest.write_bytes(bytes(data))
    assert load_checkpoint(tmp_path, *trained(0))[0] == 1
