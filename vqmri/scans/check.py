"""What is refused, and by which code."""

from typing import Any

import numpy as np

REFUSALS = {
    "unreadable": "the file is damaged, cut short or of another kind than its name says",
    "too-large": "the header promises more voxels than any scan, or pixels than any picture, has",
    "not-3d": "the image has not exactly three axes longer than one voxel",
    "not-real": "the voxels are complex, RGB or of another kind that is no grey value",
    "no-affine": "the header does not say where the voxels are (sform and qform both 0)",
    "bad-affine": "the affine is not finite or not invertible",
    "not-finite": "some voxels are NaN or infinite",
    "constant": "all voxels have the same value",
    "not-8-bit": "the picture has another number of bits per channel than 8",
    "modality-missing": "there is no file of a further modality that belongs to the scan",
    "modality-mismatch": "a further modality shows another part of the world than the image",
    "label-missing": "there is no label map of this name",
    "label-mismatch": "the label map lies on another grid than the image",
    "label-values": "the label map has a value that is not among `label_values`",
}
"""Every code that can stand in rejections.tsv, and what it means."""

MAX_VOXELS = 1024**3


class Refused(Exception):  # noqa: N818  (a verdict on a scan, not a fault of the program)
    """This scan cannot be used; the run goes on without it."""

    def __init__(self, code: str, reason: str) -> None:
        if code not in REFUSALS:
            raise ValueError(f"unknown refusal {code!r}")
        super().__init__(f"{code}: {reason}")
        self.code = code
        self.reason = reason


def check_header(shape: tuple[int, ...], dtype: np.dtype[Any], affine: np.ndarray | None) -> None:
    """Refuse by what the header says, before anything is allocated. `affine` None: it has none."""
    if int(np.prod(shape, dtype=object)) > MAX_VOXELS:
        raise Refused("too-large", f"shape {shape} has more than {MAX_VOXELS} voxels")
    if len(shape) < 3 or any(n <= 1 for n in shape[:3]) or any(n != 1 for n in shape[3:]):
        raise Refused("not-3d", f"shape {shape}")
    if dtype.kind not in "iuf":
        raise Refused("not-real", f"voxels are of type {dtype}")
    if affine is None:
        raise Refused("no-affine", "sform_code and qform_code are both 0")
    if not np.isfinite(affine).all() or abs(np.linalg.det(affine[:3, :3])) < 1e-9:
        raise Refused("bad-affine", f"affine {affine.tolist()}")


def check_voxels(data: np.ndarray) -> None:
    """Refuse what no scaling of intensities could mend."""
    if not np.isfinite(data).all():
        raise Refused("not-finite", f"{int((~np.isfinite(data)).sum())} voxels are NaN or infinite")
    if data.min() == data.max():
        raise Refused("constant", f"every voxel is {float(data.flat[0])}")
