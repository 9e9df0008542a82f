"""The training loop of both models."""

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn, optim

from vqmri.errors import DivergedError, InterruptedRunError
from vqmri.protocols import Metrics, Tracker
from vqmri.quantizers import one_update
from vqmri.terminal import progress, say
from vqmri.training.average import averaged
from vqmri.training.batches import ahead, step_seed
from vqmri.training.checkpoint import load_checkpoint, save_checkpoint
from vqmri.training.memory import explained
from vqmri.training.ranks import own_slots
from vqmri.training.stop import held_back

Row = dict[str, float]
"""One line of the history: step, mean of each term over the epoch, and whatever the epoch says."""

SECONDS_BETWEEN_CHECKPOINTS = 20.0
MAX_GRADIENT_NORM = 1.0


@dataclass(frozen=True)
class Task:
    """What is trained.

    inputs: step and places in its batch to the tensors of these items, on the CPU; it is called
        ahead of its turn, from another thread, and computes nothing with torch: that would start a
        second team of threads, beside which a step takes up to half as long again
    terms: the model, ready to be called, the step, the places and their inputs on the device, to
        the terms of the loss, scalars; the one called "loss" is minimised
    subjects: step to the subjects in its batch, for the message when the loss diverges
    epoch: called at each epoch's end with the step count and the model as it would be published,
        returns further metrics of that epoch
    tally: what `terms` counts for `epoch`, in buffers on the CPU that add up over processes; a
        checkpoint in mid-epoch holds them
    """

    name: str
    model: nn.Module
    inputs: Callable[[int, range], Sequence[Tensor]]
    terms: Callable[[nn.Module, int, range, Sequence[Tensor]], Mapping[str, Tensor]]
    subjects: Callable[[int], list[str]]
    epoch: Callable[[int, nn.Module], Metrics]
    tally: nn.Module = field(default_factory=nn.Module)


@dataclass(frozen=True)
class Plan:
    """How long and how it is trained.

    rate: step to learning rate
    micro_batch: items that pass through the model at a time; None: the batch as a whole
    average_decay: of the moving average of the weights, which is then what is published; None: the
        last weights are
    """

    steps: int
    steps_per_epoch: int
    batch_size: int
    rate: Callable[[int], float]
    seed: int
    micro_batch: int | None = None
    average_decay: float | None = None


def fit(
    task: Task,
    optimiser: optim.Optimizer,
    plan: Plan,
    *,
    fabric: Fabric,
    checkpoints: Path,
    tracker: Tracker,
) -> list[Row]:
    """Train `task.model` in place, going on from the newest checkpoint; returns the history.

    A checkpoint holds what an epoch that has begun has counted so far, so a resumed run is on the
    CPU the same run to the last bit. SIGTERM and Ctrl-C wait until one is written. With several
    processes each computes its share of every batch, and all end with equal weights. DivergedError
    when the loss or its gradient is not finite, OutOfMemoryError when the device's memory does not
    do, InterruptedRunError when it was stopped and the signal did not end the process.
    """
    slots = own_slots(fabric, task.name, plan.batch_size, plan.micro_batch)
    with explained(task.name, fabric.device, plan.batch_size, at_a_time=len(slots[0])):
        return _Run(task, optimiser, plan, fabric, slots).go(checkpoints, tracker)


class _Run:
    """A training and what it holds in hand."""

    def __init__(
        self,
        task: Task,
        optimiser: optim.Optimizer,
        plan: Plan,
        fabric: Fabric,
        slots: Sequence[range],
    ) -> None:
        self.task, self.optimiser, self.plan, self.fabric = task, optimiser, plan, fabric
        self.slots = slots
        self.model = fabric.setup_module(task.model)  # on its device from here on
        self.kept = nn.ModuleDict({"model": task.model, "tally": task.tally})
        self.published = task.model
        if plan.average_decay is not None:
            self.average = averaged(task.model, plan.average_decay)
            self.kept["average"] = self.average
            self.published = self.average.module.eval()

    def go(self, checkpoints: Path, tracker: Tracker) -> list[Row]:
        plan, leads = self.plan, self.fabric.is_global_zero
        self.fabric.barrier()  # the leader has made the folder
        done, history, sums = load_checkpoint(
            checkpoints, self.kept, self.optimiser, agree=self.fabric.broadcast
        )
        if not leads:
            self._set_tally(lambda counts: counts.zero_())  # the leader has that of all
        elif done:
            say(f"{self.task.name} goes on from step {done} of {plan.steps}")
        saved_at = time.monotonic()
        steps = range(done, plan.steps)
        parts = ahead(self.task.inputs, [(step, slots) for step in steps for slots in self.slots])
        self.task.model.train()
        with (
            held_back() as stop_is_asked,
            progress(self.task.name, plan.steps, "step", done=done, quiet=not leads) as bar,
        ):
            while done < plan.steps:
                for key, value in self._step(done, parts).items():
                    sums[key] = sums.get(key, 0.0) + value
                done += 1
                bar.advance()
                if done % plan.steps_per_epoch == 0 or done == plan.steps:
                    history.append(self._row(done, sums, tracker))
                    sums = {}
                    bar.note(", ".join(f"{k} {v:.4g}" for k, v in list(history[-1].items())[2:5]))
                    self.task.model.train()
                stop = self._on_any(stop_is_asked())
                due = self._on_any(time.monotonic() - saved_at > SECONDS_BETWEEN_CHECKPOINTS)
                if stop or due or done == plan.steps:
                    sums = self._save(checkpoints, done, history, sums)
                    saved_at = time.monotonic()
                if stop:
                    break
        if done < plan.steps:
            raise InterruptedRunError(
                f"{self.task.name}: stopped after step {done} of {plan.steps}, with a checkpoint. "
                "The same command goes on from there."
            )
        if self.published is not self.task.model:
            self.task.model.load_state_dict(self.published.state_dict())
        return history

    def _save(self, checkpoints: Path, done: int, history: list[Row], sums: Row) -> Row:
        """The leader's checkpoint holds what all have counted; the sums that each goes on with."""
        sums = {key: self._mean(value) for key, value in sums.items()}
        self._set_tally(self._of_all)
        if self.fabric.is_global_zero:
            save_checkpoint(checkpoints, done, self.kept, self.optimiser, history, sums)
        return sums

    def _row(self, done: int, sums: Row, tracker: Tracker) -> Row:
        """What is kept of an epoch that ends after so many steps; means are over all processes."""
        length = (done - 1) % self.plan.steps_per_epoch + 1
        row = {"step": float(done), "learning_rate": self.plan.rate(done - 1)}
        row |= {key: self._mean(value / length) for key, value in sums.items()}
        row |= self.task.epoch(done, self.published)
        tracker.metrics({key: row[key] for key in row if key != "step"}, step=done)
        return row

    def _step(self, step: int, parts: Iterator[Sequence[Tensor]]) -> Row:
        """One step of the optimiser; the mean of each term over this process's share."""
        torch.manual_seed(step_seed(self.plan.seed, step, self.fabric.global_rank))
        for group in self.optimiser.param_groups:
            group["lr"] = self.plan.rate(step)
        self.optimiser.zero_grad(set_to_none=True)
        sums: Row = {}
        with one_update(self.task.model):
            for slots in self.slots:
                self._add(sums, step, slots, next(parts))
        norm = nn.utils.clip_grad_norm_(self.task.model.parameters(), MAX_GRADIENT_NORM)
        self._check(step, self._mean(sums["loss"]), float(norm))
        self.optimiser.step()
        if self.plan.average_decay is not None:
            self.average.update_parameters(self.task.model)
        return sums

    def _add(self, sums: Row, step: int, slots: range, inputs: Sequence[Tensor]) -> None:
        """Gradient and terms of one part of the batch, as its share of the whole."""
        share = 1 / len(self.slots)
        moved = [tensor.to(self.fabric.device) for tensor in inputs]
        with self.fabric.no_backward_sync(self.model, enabled=slots is not self.slots[-1]):
            terms = self.task.terms(self.model, step, slots, moved)
            self.fabric.backward(terms["loss"] * share)
        for key, value in terms.items():
            sums[key] = sums.get(key, 0.0) + share * float(value.detach())

    def _check(self, step: int, loss: float, norm: float) -> None:
        """Before the weights take any harm. All processes see the same and end together."""
        if math.isfinite(loss) and math.isfinite(norm):
            return
        what = f"loss is {loss}" if not math.isfinite(loss) else f"gradient's length is {norm}"
        raise DivergedError(
            f"{self.task.name}: the {what} at step {step}, in a batch of subjects "
            f"{self.task.subjects(step)}. The last good checkpoint is kept. Lower the learning "
            f"rate, {self.task.name}.learning_rate in params.yaml: the training then begins anew."
        )

    def _set_tally(self, change: Callable[[Tensor], Tensor]) -> None:
        for counts in self.task.tally.buffers():
            counts.copy_(change(counts))

    def _of_all(self, counts: Tensor) -> Tensor:
        """For the leader, whose checkpoint it is, what all processes have counted; else nothing."""
        if self.fabric.world_size == 1:
            return counts
        total = self.fabric.all_reduce(counts.to(self.fabric.device), reduce_op="sum")
        return total.cpu() if self.fabric.is_global_zero else torch.zeros_like(counts)

    def _on_any(self, told: bool) -> bool:
        """Whether it is so on any of the processes, which then do the same at the same step."""
        return self._mean(float(told)) > 0

    def _mean(self, value: float) -> float:
        """Over all processes."""
        if self.fabric.world_size == 1:
            return value
        total = torch.tensor(value, device=self.fabric.device, dtype=torch.float64)
        return float(self.fabric.all_reduce(total, reduce_op="mean"))
