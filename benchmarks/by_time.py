"""Training for equal wall time: what benchmarks.training and benchmarks.frontier share.

The share of the wall time that has gone stands for the share of the preset's steps, so that the
learning rate of ours ends at zero whatever the machine.
"""

import argparse
import math
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import torch

from benchmarks.contender import Batches, Contender, reconstruct_side, take_step
from benchmarks.own import own_contender
from benchmarks.volumes import Side, Split, closeness, similarity
from vqmri.build.train_vqvae import vqvae_arguments
from vqmri.outputs.manifest import digest
from vqmri.params import TrainVQVAE
from vqmri.terminal import progress
from vqmri.training.device import choose_device
from vqmri.training.optim import warmup_cosine

PRESET = "hippocampus"
POINTS = 12
"""Of a curve, evenly over the wall time."""

Row = dict[str, Any]


class Point(NamedTuple):
    """Of a curve: share of the wall time gone, steps taken, held-out PSNR in dB."""

    share: float
    steps: int
    psnr: float


@dataclass
class Clock:
    """Wall time of training steps alone: `gone` of `budget` seconds."""

    budget: float
    gone: float = 0.0

    @property
    def share(self) -> float:
        """At most 1."""
        return min(1.0, self.gone / self.budget)


def build_by_time(
    name: str,
    settings: TrainVQVAE,
    clock: Clock,
    *,
    spacing: Sequence[float],
    seed: int,
    device: torch.device,
) -> Contender:
    """The VQ-VAE of these settings for grey values alone; its learning rate follows the clock.

    spacing: of the volumes, mm
    """
    torch.manual_seed(seed)
    rate = warmup_cosine(settings.learning_rate, settings.warmup, settings.steps)
    return own_contender(
        name,
        vqvae_arguments(settings, spatial_dims=len(spacing), in_channels=1, num_classes=0),
        settings,
        rate=lambda step: rate(int(clock.share * settings.steps)),
        schedule=f"warm-up over {settings.warmup / settings.steps:.0%} of the time and cosine to "
        f"0, widths {settings.channels}, {settings.num_res_blocks} residual blocks",
        spacing=spacing,
        device=device,
    )


def train(
    contender: Contender, clock: Clock, batches: Batches, side: Side, *, points: int = POINTS
) -> tuple[list[Point], Row]:
    """Train until the clock's time is gone: the curve, and at the end the figures of `side`.

    Usage and perplexity have the names that `Usage` gives them.
    """
    curve: list[Point] = []
    steps, due = 0, 1 / points
    with progress(contender.name, clock.budget, "s") as bar:
        while clock.share < 1:
            contender.model.train()
            before = clock.gone
            clock.gone += take_step(contender, batches, steps)
            bar.advance(clock.gone - before)
            steps += 1
            if clock.share >= due:
                volumes, use = reconstruct_side(contender, side, batches)
                found = closeness(volumes, side)
                curve.append(Point(clock.share, steps, found["psnr"]))
                due = min(1.0, (math.floor(clock.share * points) + 1) / points)
    return curve, {**found, "ssim": similarity(volumes, side), **use}


def num_parameters(contender: Contender) -> int:
    """Trained weights; codebooks, which follow averages and are of one size, are left out."""
    return sum(p.numel() for p in contender.network.parameters() if p.requires_grad)


def parser(name: str, *, minutes: float) -> argparse.ArgumentParser:
    """Of the command `python -m benchmarks.NAME`; minutes: the default."""
    made = argparse.ArgumentParser(prog=f"python -m benchmarks.{name}")
    made.add_argument("--volumes", type=Path, default=Path("data/volumes"))
    made.add_argument("--minutes", type=_above_zero, default=minutes, help="of training, each row")
    made.add_argument("--seed", type=int, default=0)
    return made


def _above_zero(text: str) -> float:
    value = float(text)
    if not value > 0:
        raise argparse.ArgumentTypeError("must be above 0")
    return value


def about(
    name: str,
    options: argparse.Namespace,
    split: Split,
    settings: TrainVQVAE,
    packages: Sequence[str],
) -> Row:
    """What the reader of a result must know of the run; options: those of `parser`."""
    return {
        "benchmark": name,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "preset": PRESET,
        "minutes": options.minutes,
        "seed": options.seed,
        "batch_size": settings.batch_size,
        "volumes": digest(options.volumes),
        "train_volumes": len(split.train.volumes),
        "held_out_volumes": len(split.held_out.volumes),
        "space": split.space,
        "device": choose_device().type,
        "threads": torch.get_num_threads(),
        "versions": {package: version(package) for package in packages},
    }
