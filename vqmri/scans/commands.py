"""Commands of the user's that take a scan and write another: a face taken off, a brain mask."""

import os
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from jaxtyping import Float
from nibabel.spatialimages import HeaderDataError

from vqmri.scans import bids, image_file, nifti
from vqmri.scans.check import Refused
from vqmri.scans.volume import Steps, Volume

SCAN, OUT = "{scan}", "{out}"
"""What stands in a command for the file to read and the file to write, both .nii.gz."""

TIMEOUT_S = 3600.0
_SAME_GRID = 1e-3  # mm between affines
_TOLD = 300  # characters of what a command said


def deface(scan: Volume, command: Sequence[str], scratch: Path | None) -> tuple[Volume, Steps]:
    """Each channel as the command left it. Raises Refused when it fails or moves the voxels.

    scratch: folder in which the scan lies for a while
    """
    data = [_run(command, scan, channel, scratch) for channel in scan.data]
    step = {"step": "deface", "program": Path(command[0]).name}
    return replace(scan, data=np.stack(data)), [step]


def mask_brain(scan: Volume, command: Sequence[str], scratch: Path | None) -> tuple[Volume, Steps]:
    """The scan with the mask that the command makes of its first channel. Raises Refused."""
    mask = (_run(command, scan, scan.data[0], scratch) > 0).astype(np.float32)
    step = {"step": "mask", "program": Path(command[0]).name, "voxels": int(mask.sum())}
    return replace(scan, mask=mask), [step]


def _run(
    command: Sequence[str],
    scan: Volume,
    channel: Float[np.ndarray, "x y z"],
    scratch: Path | None,
) -> Float[np.ndarray, "x y z"]:
    """What the command makes of one channel. It sees voxels and affine, and no name of a person."""
    assert scan.affine is not None
    program = Path(command[0]).name
    with TemporaryDirectory(prefix="vqmri-command-", dir=scratch) as name:
        folder = Path(name).resolve()
        source, target = folder / "scan.nii.gz", folder / "out.nii.gz"
        try:
            source.write_bytes(bids.nifti_bytes(channel, scan.affine, ""))
        except HeaderDataError as error:  # NIfTI-1 cannot hold an axis of more than 32,767 voxels
            raise Refused("command-failed", f"it cannot be given to {program}: {error}") from error
        words = [word.replace(SCAN, str(source)).replace(OUT, str(target)) for word in command]
        code, said = _ended(words, folder)
        if code != 0:
            said = said.replace(f"{folder}/", "")
            raise Refused("command-failed", f"{program} ended with {code}: {said[-_TOLD:]}")
        if not target.is_file():
            raise Refused("command-failed", f"{program} wrote no {OUT}")
        return _result(target, scan, program)


def _ended(words: Sequence[str], folder: Path) -> tuple[int | str, str]:
    """Exit code, or why there is none, and what was said; nothing that it began is left."""
    with (folder / "said").open("wb+") as said:  # a pipe would wait for all who hold it
        try:
            process = subprocess.Popen(
                words, cwd=folder, stdin=subprocess.DEVNULL, stdout=said,
                stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
        except OSError as error:
            return f"{type(error).__name__}", error.strerror or ""
        try:
            code: int | str = process.wait(TIMEOUT_S)
        except subprocess.TimeoutExpired:
            code = f"no end after {TIMEOUT_S:g} s"
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        said.seek(0)
        return code, " ".join(said.read().decode(errors="replace").split())


def _result(target: Path, scan: Volume, program: str) -> Float[np.ndarray, "x y z"]:
    try:
        # a mask compresses about as far as a bomb does
        found, _ = nifti.read(target, least=image_file.least_of(scan.data[0].size))
    except Refused as refusal:
        reason = f"what {program} wrote as {OUT} is {refusal.code}: {refusal.reason}"
        raise Refused("command-failed", reason) from refusal
    assert found.affine is not None
    assert scan.affine is not None
    same = found.data.shape[1:] == scan.data.shape[1:]
    if not same or not np.allclose(found.affine, scan.affine, atol=_SAME_GRID):
        raise Refused("command-failed", f"{program} wrote a volume on another grid")
    return found.data[0]
