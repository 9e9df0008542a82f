"""A short training in one process, or as one of two gloo processes: `python -m … RANK FOLDER`."""

import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from tests.quantizers.cases import INITIALISATIONS, NAMES, build
from vqmri.quantizers import Initialisation, Quantizer

WORLD = 2
STEPS = 12
SHARES = (slice(0, 2), slice(2, 5))
"""Rows of the batch on each rank: they hold different numbers of tokens."""


def batch_of(step: int) -> Tensor:
    """Spread out at first, and later near one of the old places, so that codes die there."""
    own = torch.Generator().manual_seed(step)
    spread = 3.0 if step < 4 else 0.3
    return 1 + spread * torch.randn(5, 4, 4, 6, generator=own)


def num_restarted(module: Quantizer, batch: Tensor) -> int:
    """How many vectors are, to the last bit, a token of the batch."""
    tokens = batch.movedim(1, -1).reshape(-1, 1, batch.shape[1])
    return int((module.codebook == tokens).all(dim=2).any(dim=0).sum())


def trained(name: str, initialisation: Initialisation, rank: int | None) -> tuple[Quantizer, int]:
    """The quantizer after STEPS steps on this rank's rows, or all (None), and its restarts."""
    module = build(name, number=16, decay=0.5, initialisation=initialisation).train()
    # not Adam: it makes whole steps of the rounding errors of a gradient that is 0
    parameters = list(module.parameters())
    optimiser = torch.optim.SGD(parameters, lr=1.0) if parameters else None
    replica = DistributedDataParallel(module) if rank is not None and optimiser else module
    restarts = 0
    for step in range(STEPS):
        # only rank 0 draws: the others' random numbers must not matter
        torch.manual_seed(step if not rank else 1000 + step)
        whole = batch_of(step)
        if step == 8 and optimiser:  # its own count falls too slowly for a short test
            module.get_buffer("mean_count")[:3] = 0
        own = whole if rank is None else whole[SHARES[rank]]
        loss = replica(own).loss
        restarts += num_restarted(module, whole) if step else 0
        if optimiser:
            optimiser.zero_grad()
            # DDP gives the mean over ranks: weigh by rows, so that it is the mean over tokens
            ranks = 1 if rank is None else WORLD
            (loss * ranks * len(own) / len(whole)).backward()
            optimiser.step()
    return module, restarts


def main(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder / 'store'}", rank=rank, world_size=WORLD)
    states = {}
    for name in NAMES:
        for initialisation in INITIALISATIONS:
            module, _ = trained(name, initialisation, rank)
            states[f"{name} {initialisation}"] = module.state_dict()
    torch.save(states, folder / f"{rank}.pt")
    dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))
