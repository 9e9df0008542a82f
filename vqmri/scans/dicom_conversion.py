"""Convert the files of a DICOM series with dcm2niix, and check where it put the slices.

No reason of a refusal repeats what dcm2niix says: it may hold a name.
"""

import subprocess
from pathlib import Path

import numpy as np
from dcm2niix import bin as _DCM2NIIX  # type: ignore[import-untyped]  # noqa: N812

from vqmri.scans.check import Refused
from vqmri.scans.dicom_image import Positions
from vqmri.scans.volume import Volume

_OPTIONS = [
    "-g", "i",  # no defaults file
    "-b", "n", "-ba", "y", "-c", "",  # no texts
    "-z", "n", "-f", "volume",
    "-l", "o", "-p", "y", "-x", "n", "-i", "n", "-m", "2",  # its defaults, so that they stay
]  # fmt: skip
_EXITS = {
    1: "it failed",
    2: "it found no image that it can decode",
    4: "it found a damaged file",
    8: "it could not decode some of the files",
    10: "it found an incomplete volume",
}
"""dcm2niix's exit codes that a series can cause (console/nii_dicom.h of its source)."""

_IN_PLACE = 0.05  # of a voxel


def convert(folder: Path, timeout_s: float) -> Path:
    """Run dcm2niix on `folder`/in; the one NIfTI file that it makes, else Refused.

    Neither its defaults file nor its environment is ours; what it prints is thrown away.
    """
    out = folder / "out"
    out.mkdir()
    command = [_DCM2NIIX, *_OPTIONS, "-o", str(out), str(folder / "in")]
    environment = {"HOME": str(folder), "TMPDIR": str(folder), "LC_ALL": "C"}
    try:
        code = subprocess.run(
            command, env=environment, cwd=folder, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, timeout=timeout_s, check=False,
        ).returncode  # fmt: skip
    except subprocess.TimeoutExpired:
        raise Refused("dicom-conversion", f"dcm2niix took longer than {timeout_s:g} s") from None
    if code != 0:
        meaning = "it was killed" if code < 0 else _EXITS.get(code, "see its documentation")
        raise Refused("dicom-conversion", f"dcm2niix ended with exit code {code}: {meaning}")
    made = sorted(path for path in out.iterdir() if path.suffix == ".nii")
    if len(made) != 1:
        raise Refused("not-one-volume", f"dcm2niix made {len(made)} volumes of it")
    return made[0]


def check_place(volume: Volume, positions: Positions, shape: tuple[int, int]) -> None:
    """Raises Refused for slices that are lost, made up, or elsewhere than the headers say.

    shape: rows and columns of a slice
    The first voxel of every slice, whatever axes were swapped or turned, is one of the volume's.
    """
    assert volume.affine is not None
    if volume.data.size != shape[0] * shape[1] * len(positions):
        raise Refused(
            "dicom-conversion", "dcm2niix made another number of voxels than it was given"
        )
    places = np.linalg.solve(volume.affine[:3, :3], (positions - volume.affine[:3, 3]).T).T
    voxels = np.rint(places)
    last = np.array(volume.data.shape[1:]) - 1
    inside = (voxels >= 0).all() and (voxels <= last).all()
    exact = np.abs(places - voxels).max() < _IN_PLACE
    if not (inside and exact and len(np.unique(voxels, axis=0)) == len(positions)):
        raise Refused("dicom-conversion", "dcm2niix put slices elsewhere than their headers say")
