"""The memory of the device, and what to say when it does not do."""

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from vqmri.errors import OutOfMemoryError

GIB = 2**30

LARGE = 16 * 2**20
"""Bytes. The preset hippocampus has tensors of 6 to 12 MiB: at 4 a step takes a tenth more."""

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # of malloc.h
_CGROUP_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def total_memory(device: torch.device) -> int:
    """Bytes of memory that the device has; on the CPU those that its container may use."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).total_memory)
    texts = [Path(name).read_text().strip() for name in _CGROUP_LIMITS if Path(name).is_file()]
    limits = [int(text) for text in texts if text.isdigit()]  # or "max"
    return min([os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"), *limits])


def return_large_blocks() -> None:
    """From here on this process returns freed blocks of LARGE bytes to the system at once.

    By itself glibc raises that size up to 32 MiB as such blocks are freed. What is smaller stays on
    its heap, in pieces into which the next tensor often does not fit.
    """
    _set_malloc(LARGE, 2 * LARGE)


def keep_memory() -> None:
    """Let glibc give freed volumes to the next scan: to ask the system again costs a quarter."""
    _set_malloc(2**25, 2**30)  # the first is the most that it takes


def _set_malloc(mmap_threshold: int, trim_threshold: int) -> None:
    """See mallopt(3); C libraries without it are left as they are."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, mmap_threshold)
        mallopt(_TRIM_THRESHOLD, trim_threshold)


@contextmanager
def explained(name: str, device: torch.device, batch_size: int, at_a_time: int) -> Iterator[None]:
    """Turn a failed allocation into OutOfMemoryError, which says what to lower.

    name: of the section of params.yaml
    at_a_time: how many items of a batch pass through the model in one go
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:  # torch.OutOfMemoryError is a RuntimeError
        if not _is_out_of_memory(error):
            raise
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise OutOfMemoryError(
            f"{name}: out of memory on {device.type}, which has {total_memory(device) / GIB:.1f} "
            f"GiB ({said}). At a time {at_a_time} of a batch's {batch_size} items "
            f"pass through the model: {_what_helps(name, at_a_time)} `vqmri plan` predicts what "
            "fits. The last checkpoint is kept."
        ) from error


def _what_helps(name: str, at_a_time: int) -> str:
    at_once = [f"lower {name}.micro_batch"] * (at_a_time > 1)
    if name == "train_vqvae":
        at_once.append(f"set {name}.activation_checkpointing")
        anew = f"train on pieces of volumes with {name}.patch"
    else:
        anew = f"lower {name}.channels or {name}.num_layers"
    goes_on = f"{' or '.join(at_once)}, and it goes on from there; or " if at_once else ""
    return f"{goes_on}{anew}, and it begins anew."


def _is_out_of_memory(error: BaseException) -> bool:
    text = str(error).lower()
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or any(
        words in text for words in ("can't allocate memory", "not enough memory", "out of memory")
    )
