"""What runs in the child processes of the kill tests; imported once, by their fork server."""

import os
import signal
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from vqmri.layout import Layout
from vqmri.params import Params
from vqmri.stages import STAGES
from vqmri.training import batches, loop

for dotted in STAGES.values():
    import_module(dotted.split(":")[0])

loop.SECONDS_BETWEEN_CHECKPOINTS = 0.0


def run_until(stage: str, root: str, values: dict[str, Any], step: int) -> None:
    """Run a training stage and die at the beginning of one of its steps."""

    def die(seed: int, now: int, rank: int = 0) -> int:
        if now == step:
            os.kill(os.getpid(), signal.SIGKILL)
        return batches.step_seed(seed, now, rank)

    vars(loop)["step_seed"] = die
    run_stage(stage, root, values)


def run_stage(stage: str, root: str, values: dict[str, Any]) -> None:
    """Run a stage with plain values, quietly."""
    sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115  (for the life of the process)
    torch.set_num_threads(1)
    module, name = STAGES[stage].split(":")
    getattr(import_module(module), name)(Params.model_validate(values), Layout(Path(root)))
