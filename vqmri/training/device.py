"""Where to compute, and in which precision."""

import os
from contextlib import AbstractContextManager

import torch


def choose_device() -> torch.device:
    """The first CUDA device if there is one, else the CPU with a thread for each of its cores.

    OMP_NUM_THREADS names another number, as it does in a Dask worker. The number is set here
    because sums depend on it in their last bits, and a thread that is not the main one (a Prefect
    task's) would otherwise start with another. So the same bytes are promised for the same CPU and
    the same number of threads.
    """
    if torch.cuda.is_available():
        return torch.device("cuda")
    torch.set_num_threads(_threads())
    return torch.device("cpu")


def _threads() -> int:
    cores = len(os.sched_getaffinity(0))
    if ranks := int(os.environ.get("LOCAL_WORLD_SIZE", 0)):  # torchrun sets the other one by itself
        return max(cores // ranks, 1)
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return min(int(asked), cores) if asked.isdecimal() and int(asked) else cores


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
