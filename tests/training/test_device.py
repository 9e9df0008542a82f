"""How many threads a process computes with."""

import os

import pytest
import torch

from vqmri.training.device import choose_device

CORES = len(os.sched_getaffinity(0))


@pytest.mark.parametrize(
    ("variables", "threads"),
    [
        ({}, CORES),
        ({"OMP_NUM_THREADS": "1"}, 1),
        ({"OMP_NUM_THREADS": "4096"}, CORES),
        ({"OMP_NUM_THREADS": "0"}, CORES),
        ({"OMP_NUM_THREADS": "2,1"}, CORES),  # of nested regions: not for us
        ({"OMP_NUM_THREADS": "1", "LOCAL_WORLD_SIZE": "1"}, CORES),  # torchrun's own 1
        ({"LOCAL_WORLD_SIZE": "4096"}, 1),
    ],
)
@pytest.mark.skipif(torch.cuda.is_available(), reason="threads are the CPU's")
def test_a_thread_for_each_core_unless_told(
    variables: dict[str, str], threads: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = torch.get_num_threads()
    for name in ("OMP_NUM_THREADS", "LOCAL_WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    try:
        assert choose_device().type == "cpu"
        assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
