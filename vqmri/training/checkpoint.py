"""Checkpoints that survive a kill, a full disk and a flipped bit."""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save
from torch import OutOfMemoryError, Tensor, nn, optim

from vqmri.errors import IntegrityError
from vqmri.outputs import replace_file, sha256_of
from vqmri.training.model_folder import UNFIT

KEPT = 2
_NAME = re.compile(r"step-\d{8,}-[0-9a-f]{64}\.safetensors")


def least_bytes(model: nn.Module) -> int:
    """What a training writes at least: the checkpoints that are kept, the next, and the weights."""
    weights = sum(value.numel() * value.element_size() for value in model.state_dict().values())
    return weights * (2 * (KEPT + 1) + 1)  # the optimiser has a momentum of each


def save_checkpoint(
    folder: Path,
    step: int,
    model: nn.Module,
    optimiser: optim.Optimizer,
    history: list[Any],
    sums: Mapping[str, float],
) -> None:
    """Write `step-NNNNNNNN-SHA256.safetensors` whole or not at all; the newest two are kept.

    Holds weights, buffers, the optimiser's state, the history of whole epochs and the sums of the
    one that has begun. Random states are not needed: every step seeds itself from (seed, step).
    """
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    for index, state in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{name}": value for name, value in state.items()}
    tensors = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    about = {"step": str(step), "history": json.dumps(history), "sums": json.dumps(sums)}
    data = save(tensors, about)
    replace_file(folder / f"step-{step:08d}-{hashlib.sha256(data).hexdigest()}.safetensors", data)
    for damaged in (p for p in _newest_first(folder) if int(p.name.split("-")[1]) > step):
        damaged.unlink()  # or it would have been gone on from
    for old in _newest_first(folder)[KEPT:]:
        old.unlink()


def load_checkpoint(
    folder: Path,
    model: nn.Module,
    optimiser: optim.Optimizer,
    agree: Callable[[str | None], str | None] = lambda name: name,
) -> tuple[int, list[Any], dict[str, float]]:
    """Restore the newest checkpoint whose bytes are right; returns its step, history and sums.

    Without one: (0, [], {}), and nothing is changed.

    agree: what this process has found to what all that train together take, the first one's.
        IntegrityError when this process does not have that, or when that is no checkpoint of
    this training, whatever its name says
    """
    found = [p.name for p in _newest_first(folder) if sha256_of(p) == p.stem.rsplit("-", 1)[1]]
    name = agree(found[0] if found else None)
    if name is None:
        return 0, [], {}
    if name not in found:
        raise IntegrityError(
            f"{folder / name} is damaged or not there, but another process trains on from it. All "
            "processes must see the same folder; start them again."
        )
    try:
        return _restore(folder / name, model, optimiser)
    except OutOfMemoryError:  # of the device: the file is not to blame
        raise
    except UNFIT as error:
        raise IntegrityError(
            f"{folder / name} is no checkpoint of this training ({error}). Remove it, and the same "
            "command goes on from an earlier one."
        ) from error


def _newest_first(folder: Path) -> list[Path]:
    found = (path for path in folder.glob("step-*") if _NAME.fullmatch(path.name))
    return sorted(found, reverse=True)


def _restore(
    path: Path, model: nn.Module, optimiser: optim.Optimizer
) -> tuple[int, list[Any], dict[str, float]]:
    with safe_open(path, framework="pt") as file:
        about: Mapping[str, str] = file.metadata()
        tensors: dict[str, Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    model.load_state_dict(
        {n.removeprefix("model."): t for n, t in tensors.items() if n.startswith("model.")}
    )
    state = optimiser.state_dict()
    state["state"] = {}
    for name, tensor in tensors.items():
        if name.startswith("optimiser."):
            _, index, key = name.split(".")
            state["state"].setdefault(int(index), {})[key] = tensor
    optimiser.load_state_dict(state)
    return int(about["step"]), json.loads(about["history"]), json.loads(about["sums"])
