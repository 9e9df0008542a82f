import os
import platform
import subprocess
import sys

import pytest

from vqmri.training.memory import LARGE

_MEASURE = """
import sys, torch
from pathlib import Path
from vqmri.training.memory import LARGE, return_large_blocks

def resident():
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith("VmRSS"))

if sys.argv[1] == "returned":
    return_large_blocks()
torch.ones(7 * LARGE // 4, dtype=torch.uint8)  # and freed: glibc takes its size for the usual
blocks = [torch.ones(5 * LARGE // 4, dtype=torch.uint8) for _ in range(10)]
del blocks[:-1]
print(resident())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the setting is one of glibc")
def test_large_blocks_are_returned_though_a_later_one_is_in_use() -> None:
    default, returned = (
        int(
            subprocess.run(
                [sys.executable, "-W", "ignore", "-c", _MEASURE, how],
                capture_output=True, text=True, check=True,
                env={k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")},
            ).stdout
        )
        for how in ("default", "returned")
    )  # fmt: skip
    assert default - returned > 0.9 * 9 * 5 * LARGE // 4
