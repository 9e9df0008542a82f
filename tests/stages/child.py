"""What runs in the child processes of the kill tests; imported once, by their fork server."""

import os
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from vqmri.layout import Layout
from vqmri.params import Params
from vqmri.stages import STAGES
from vqmri.training import loop

for dotted in STAGES.values():
    import_module(dotted.split(":")[0])

loop.SECONDS_BETWEEN_CHECKPOINTS = 0.0


def run_stage(stage: str, root: str, values: dict[str, Any]) -> None:
    """Run a stage with plain values, quietly."""
    sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115  (for the life of the process)
    torch.set_num_threads(1)
    module, name = STAGES[stage].split(":")
    getattr(import_module(module), name)(Params.model_validate(values), Layout(Path(root)))
