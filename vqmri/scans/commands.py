"""Commands of the user's that take a scan and write another: a face taken off, a brain mask."""

import subprocess
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from jaxtyping import Float

from vqmri.scans import bids, nifti
from vqmri.scans.check import Refused
from vqmri.scans.volume import Steps, Volume

SCAN, OUT = "{scan}", "{out}"
"""What stands in a command for the file to read and the file to write, both .nii.gz."""

TIMEOUT_S = 3600.0
_SAME_GRID = 1e-3  # mm between affines
_TOLD = 300  # characters of what a command said


def deface(scan: Volume, command: Sequence[str]) -> tuple[Volume, Steps]:
    """Each channel as the command left it. Raises Refused when it fails or moves the voxels."""
    data = [_run(command, scan, channel) for channel in scan.data]
    step = {"step": "deface", "program": Path(command[0]).name}
    return replace(scan, data=np.stack(data)), [step]


def mask_brain(scan: Volume, command: Sequence[str]) -> tuple[Volume, Steps]:
    """The scan with the mask that the command makes of its first channel. Raises Refused."""
    mask = (_run(command, scan, scan.data[0]) > 0).astype(np.float32)
    step = {"step": "mask", "program": Path(command[0]).name, "voxels": int(mask.sum())}
    return replace(scan, mask=mask), [step]


def _run(
    command: Sequence[str], scan: Volume, channel: Float[np.ndarray, "x y z"]
) -> Float[np.ndarray, "x y z"]:
    """What the command makes of one channel. It sees voxels and affine, and no name of a person."""
    assert scan.affine is not None
    with TemporaryDirectory(prefix="vqmri-command-") as name:
        source, target = Path(name) / "scan.nii.gz", Path(name) / "out.nii.gz"
        source.write_bytes(bids.nifti_bytes(channel, scan.affine, ""))
        words = [word.replace(SCAN, str(source)).replace(OUT, str(target)) for word in command]
        try:
            done = subprocess.run(
                words, cwd=name, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT, timeout=TIMEOUT_S, check=False,
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired) as error:
            raise Refused("command-failed", f"{command[0]}: {type(error).__name__}") from error
        said = " ".join(done.stdout.decode(errors="replace").split())[-_TOLD:]
        if done.returncode != 0:
            reason = f"{command[0]} ended with exit code {done.returncode}: {said}"
            raise Refused("command-failed", reason)
        return _result(target, scan, command[0])


def _result(target: Path, scan: Volume, program: str) -> Float[np.ndarray, "x y z"]:
    try:
        found, _ = nifti.read(target)
    except Refused as refusal:
        reason = f"what {program} wrote as {OUT} is {refusal.code}: {refusal.reason}"
        raise Refused("command-failed", reason) from refusal
    assert found.affine is not None
    assert scan.affine is not None
    same = found.data.shape[1:] == scan.data.shape[1:]
    if not same or not np.allclose(found.affine, scan.affine, atol=_SAME_GRID):
        raise Refused("command-failed", f"{program} wrote a volume on another grid")
    return found.data[0]
