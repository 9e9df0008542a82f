"""One of the processes that train together: `torchrun … -m tests.stages.ranked STAGE FOLDER [END]`.

END: `cut:N` ends the process at its first checkpoint of step N or later; `fail:N` lets the second
process run out of memory in its second part of step N.
"""

import os
import sys
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from vqmri.layout import Layout
from vqmri.params import PARAMS, Params
from vqmri.stages import STAGES
from vqmri.training import loop
from vqmri.training.batches import ahead
from vqmri.training.checkpoint import save_checkpoint


def main(stage: str, root: Path, end: str = "") -> None:
    """In float32: in bfloat16 a sum's order shows in the third digit."""
    torch.cpu._is_avx512_bf16_supported = lambda: False
    torch.cpu._is_amx_tile_supported = lambda: False
    how, _, step = end.partition(":")
    if how == "cut":
        cut_off(int(step))
    if how == "fail" and os.environ["RANK"] == "1":
        run_out_of_memory(int(step))
    module, name = STAGES[stage].split(":")
    getattr(import_module(module), name)(Params.load(root / PARAMS), Layout(root))


def cut_off(step: int) -> None:
    def save_and_end(folder: Path, done: int, *others: Any) -> None:
        save_checkpoint(folder, done, *others)
        if done >= step:
            os._exit(9)

    loop.SECONDS_BETWEEN_CHECKPOINTS = -1.0
    setattr(loop, "save_checkpoint", save_and_end)  # noqa: B010


def run_out_of_memory(step: int) -> None:
    def failing(inputs: Callable[..., Any], parts: list[tuple[int, range]]) -> Any:
        at = [i for i, (of, _) in enumerate(parts) if of == step][1:2]
        for number, made in enumerate(ahead(inputs, parts)):
            if number in at:
                torch.empty(2**50)
            yield made

    setattr(loop, "ahead", failing)  # noqa: B010


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:])
