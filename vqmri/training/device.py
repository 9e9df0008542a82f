"""Where to compute, and in which precision."""

import os
from contextlib import AbstractContextManager

import torch


def choose_device() -> torch.device:
    """The first CUDA device if there is one, else the CPU with as many threads as it has cores.

    The number of threads is set here because sums depend on it in their last bits, and a thread
    that is not the main one (a Prefect task's) would otherwise start with another number. So the
    same bytes are promised for the same CPU with the same number of cores.
    """
    if torch.cuda.is_available():
        return torch.device("cuda")
    ranks = int(os.environ.get("LOCAL_WORLD_SIZE", 1))
    torch.set_num_threads(max(len(os.sched_getaffinity(0)) // ranks, 1))
    return torch.device("cpu")


def is_leader() -> bool:
    """Whether this process is the one that publishes and reports."""
    return int(os.environ.get("RANK", 0)) == 0


def mixed_precision(device: torch.device) -> AbstractContextManager[None]:
    """Autocast to bfloat16 where the hardware computes in it, else nothing."""
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=fast)
