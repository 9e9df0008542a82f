"""The training loop of both models."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn, optim
from tqdm import tqdm

from vqmri.errors import DivergedError
from vqmri.protocols import Metrics, Tracker
from vqmri.training.batches import step_seed
from vqmri.training.checkpoint import load_checkpoint, save_checkpoint

Row = dict[str, float]
"""One line of the history: step, mean of each term over the epoch, and whatever the epoch says."""

SECONDS_BETWEEN_CHECKPOINTS = 20.0
MAX_GRADIENT_NORM = 1.0


@dataclass(frozen=True)
class Task:
    """What is trained.

    terms: step to the terms of the loss, scalars; the one called "loss" is minimised
    subjects: step to the subjects in its batch, for the message when the loss diverges
    epoch: called at each epoch's end with the step count, returns further metrics of that epoch
    """

    name: str
    model: nn.Module
    terms: Callable[[int], Mapping[str, Tensor]]
    subjects: Callable[[int], list[str]]
    epoch: Callable[[int], Metrics]


def fit(
    task: Task,
    optimiser: optim.Optimizer,
    rate: Callable[[int], float],
    *,
    steps: int,
    steps_per_epoch: int,
    seed: int,
    checkpoints: Path,
    tracker: Tracker,
) -> list[Row]:
    """Train for `steps` steps, going on from the newest checkpoint; returns the history.

    Checkpoints are written between epochs, when nothing is half counted, so a resumed run is on
    the CPU the same run to the last bit. DivergedError when the loss is NaN or infinite.
    """
    done, history = load_checkpoint(checkpoints, task.model, optimiser)
    saved_at = time.monotonic()
    with tqdm(total=steps, initial=done, desc=task.name, unit="step", mininterval=1.0) as bar:
        while done < steps:
            end = min(done + steps_per_epoch, steps)
            means = _epoch(task, optimiser, rate, range(done, end), seed, bar)
            done = end
            row = {"step": float(done), "learning_rate": rate(done - 1), **means}
            row |= task.epoch(done)
            history.append(row)
            tracker.metrics({key: row[key] for key in row if key != "step"}, step=done)
            bar.set_postfix({key: f"{row[key]:.4g}" for key in list(row)[2:5]})
            if done == steps or time.monotonic() - saved_at > SECONDS_BETWEEN_CHECKPOINTS:
                save_checkpoint(checkpoints, done, task.model, optimiser, history)
                saved_at = time.monotonic()
    return history


def _epoch(
    task: Task,
    optimiser: optim.Optimizer,
    rate: Callable[[int], float],
    steps: range,
    seed: int,
    bar: "tqdm[Any]",
) -> Row:
    """Train over some steps; the mean of each term."""
    task.model.train()
    sums: Row = {}
    for step in steps:
        torch.manual_seed(step_seed(seed, step))
        for group in optimiser.param_groups:
            group["lr"] = rate(step)
        terms = task.terms(step)
        loss = terms["loss"]
        if not torch.isfinite(loss):
            raise DivergedError(
                f"{task.name}: the loss is {float(loss.detach())} at step {step}, in a batch of "
                f"subjects {task.subjects(step)}. The last good checkpoint is kept. Lower the "
                "learning rate in params.yaml."
            )
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(task.model.parameters(), MAX_GRADIENT_NORM)
        optimiser.step()
        for key, value in terms.items():
            sums[key] = sums.get(key, 0.0) + float(value.detach())
        bar.update()
    return {key: value / len(steps) for key, value in sums.items()}
