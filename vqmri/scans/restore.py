"""The way back: a normalised volume onto the grid of its scan."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from scipy import ndimage

from vqmri.scans.volume import Steps, Volume


def restore(
    volume: Volume, affine: Float[np.ndarray, "4 4"], shape: Sequence[int], steps: Steps
) -> Volume:
    """Undo `normalise`: the volume's voxels where the scan has its own, in the scan's intensities.

    volume: normalised, or a reconstruction of one, with the normalised affine
    affine, shape: of the scan as it was read; steps: as they were recorded
    Grey values are interpolated linearly, a label map takes the nearest. What the volume's window
    did not cover is the intensity that became 0, and background. What was clipped stays so; a
    removed bias field, face or skull does not come back.
    """
    assert volume.affine is not None
    scale = next(one for one in steps if one["step"] == "scale")
    back = np.linalg.solve(volume.affine, affine)
    cover = _where(np.ones(volume.data.shape[1:], np.float32), back, shape, 0, "constant") > 0
    data = []
    for channel, low, high in zip(volume.data, scale["low"], scale["high"], strict=True):
        found = _where(channel, back, shape, 1, "nearest") * (high - low) + low
        data.append(np.where(cover, found, low).astype(np.float32))
    label = None
    if volume.label is not None:
        label = np.where(cover, _where(volume.label, back, shape, 0, "nearest"), 0)
        label = label.astype(np.float32)
    return Volume(np.stack(data), np.asarray(affine, dtype=np.float64), label)


def _where(
    data: np.ndarray, back: np.ndarray, shape: Sequence[int], order: int, mode: str
) -> np.ndarray:
    """`back`: voxel of the scan to voxel of the volume, 4×4."""
    return ndimage.affine_transform(
        data, back[:3, :3], back[:3, 3], output_shape=tuple(shape), order=order,
        # half a voxel of the border belongs to the volume too
        mode="grid-constant" if mode == "constant" else mode, cval=0.0,
    )  # fmt: skip
