"""What is refused, and by which code."""

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np

REFUSALS = {
    "unreadable": "the file is damaged, cut short or of another kind than its name says",
    "too-large": "the header promises more voxels than any scan, or pixels than any picture, has, "
    "or the scan would have at the spacing of the volumes",
    "not-3d": "the image has not exactly three axes longer than one voxel",
    "not-real": "the voxels are complex, RGB or of another kind that is no grey value",
    "no-affine": "the header does not say where the voxels are (NIfTI with sform and qform both 0, "
    "MGH with goodRASFlag 0, Analyze 7.5)",
    "bad-affine": "the affine is not finite or not invertible",
    "not-finite": "some voxels are NaN or infinite",
    "constant": "all voxels have the same value",
    "not-8-bit": "the picture has another number of bits per channel than 8",
    "modality-missing": "there is no file of a further modality that belongs to the scan",
    "modality-mismatch": "a further modality shows another part of the world than the image",
    "not-bids-named": "the file has a name that a BIDS data set does not have",
    "outside": "it is a link to a file outside the folder of raw files",
    "label-missing": "there is no label map of this name",
    "label-mismatch": "the label map lies on another grid than the image",
    "label-values": "the label map has a value that is not among `label_values`",
    "mask-missing": "there is no brain mask of this name",
    "mask-mismatch": "the brain mask lies on another grid than the image",
    "mask-empty": "no voxel of the volume is in the brain mask",
    "command-failed": "a command of params.yaml (`deface`, `brain_mask`) did not do its work",
    "not-positive": "N4 takes logarithms, and too few voxels are above 0",
    "not-mr": "the images are of another modality than MR",
    "not-one-volume": "the series is several volumes, a time series, a mosaic or a localizer",
    "slices-missing": "the slices of the series are not evenly spaced, as when one is missing",
    "dicom-conversion": "dcm2niix cannot convert the series, or not faithfully",
}
"""Every code that can stand in rejections.tsv, and what it means."""

PASSING = {"command-failed", "dicom-conversion"}
"""Those that may be the machine's fault: an equal scan is tried again."""

_OF_THE_FILE = {
    None, errno.EACCES, errno.EPERM, errno.ELOOP, errno.EISDIR, errno.ENAMETOOLONG, errno.EINVAL,
    errno.EFBIG, errno.EOVERFLOW, errno.ENXIO,
}  # fmt: skip
"""Numbers of OSErrors that a file would give on any machine; damaged gzip has none."""

MAX_VOXELS = 1024**3


class Refused(Exception):  # noqa: N818  (a verdict on a scan, not a fault of the program)
    """This scan cannot be used; the run goes on without it.

    code: one of REFUSALS, or ValueError; reason: what was found
    """

    def __init__(self, code: str, reason: str) -> None:
        if code not in REFUSALS:
            raise ValueError(f"unknown refusal {code!r}")
        super().__init__(f"{code}: {reason}")
        self.code = code
        self.reason = reason


def raise_machines_fault(error: BaseException, path: Path) -> None:
    """Raise an OSError again when a disk or a file server is at fault, or a found file is gone.

    Refused for it, the scan would stay so when its file is back. A link that leads nowhere, as to
    what git-annex did not fetch, is the link's own fault.
    """
    if not isinstance(error, OSError) or error.errno in _OF_THE_FILE:
        return
    gone = error.errno in (errno.ENOENT, errno.ENOTDIR)
    if gone and os.path.islink(error.filename or path):  # noqa: PTH114  (which never raises)
        return
    error.filename = error.filename or str(path)  # a failed read does not name it
    raise error


def check_header(shape: tuple[int, ...], dtype: np.dtype[Any], affine: np.ndarray | None) -> None:
    """Raises Refused for what the header says, before anything is allocated.

    shape: voxels along each axis; affine: 4×4, None where the header has none
    """
    if int(np.prod(shape, dtype=object)) > MAX_VOXELS:
        raise Refused("too-large", f"shape {shape} has more than {MAX_VOXELS} voxels")
    if len(shape) < 3 or any(n <= 1 for n in shape[:3]) or any(n != 1 for n in shape[3:]):
        raise Refused("not-3d", f"shape {shape}")
    if dtype.kind not in "iuf":
        raise Refused("not-real", f"voxels are of type {dtype}")
    if affine is None:
        raise Refused("no-affine", "there is none in the header")
    with np.errstate(over="ignore"):
        invertible = np.isfinite(affine).all() and abs(np.linalg.det(affine[:3, :3])) >= 1e-9
    if not invertible:
        raise Refused("bad-affine", f"affine {affine.tolist()}")


def check_voxels(data: np.ndarray) -> None:
    """Raises Refused for what no scaling of intensities could mend; `data` of any shape."""
    least, most = data.min(), data.max()
    if not (np.isfinite(least) and np.isfinite(most)):
        raise Refused("not-finite", f"{int((~np.isfinite(data)).sum())} voxels are NaN or infinite")
    if least == most:
        raise Refused("constant", f"every voxel is {float(data.flat[0])}")
