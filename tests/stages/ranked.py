"""One of the processes that train together: `torchrun … -m tests.stages.ranked STAGE FOLDER`."""

import sys
from importlib import import_module
from pathlib import Path

import torch

from vqmri.layout import Layout
from vqmri.params import PARAMS, Params
from vqmri.stages import STAGES


def main(stage: str, root: Path) -> None:
    """In float32: in bfloat16 a sum's order shows in the third digit."""
    torch.cpu._is_avx512_bf16_supported = lambda: False
    torch.cpu._is_amx_tile_supported = lambda: False
    module, name = STAGES[stage].split(":")
    getattr(import_module(module), name)(Params.load(root / PARAMS), Layout(root))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
