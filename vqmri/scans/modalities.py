"""Read a NIfTI scan with what belongs to it: further modalities and the label map."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from vqmri.scans import nifti
from vqmri.scans.check import Refused
from vqmri.scans.volume import Candidate, Volume

_SAME_GRID = 1e-3  # mm between affines


def read(
    raw: Path, candidate: Candidate, *, names: Sequence[str], label_values: Sequence[int] | None
) -> tuple[Volume, str]:
    """The scan, its modalities as further channels, label map, brain mask; the scan's sha256.

    names: of the modalities, in the order of the candidate's paths
    label_values: values of the label map; without them it is looked at and not kept
    Raises Refused when one of them is absent, damaged or out of place.
    """
    scan, sha256 = nifti.read(nifti.locate(raw, candidate.source))
    paths = zip(names, candidate.modalities, strict=True)
    others = [_modality(raw, name, path, scan) for name, path in paths]
    data = np.concatenate([scan.data, *others]) if others else scan.data
    label = None
    if candidate.label is not None and label_values is None:
        nifti.check_label(nifti.locate(raw, candidate.label), scan)
    elif candidate.label is not None and label_values is not None:
        label = nifti.read_label(nifti.locate(raw, candidate.label), scan, label_values)
    mask = None
    if candidate.mask is not None:
        mask = nifti.read_mask(nifti.locate(raw, candidate.mask), scan)
    return replace(scan, data=data, label=label, mask=mask), sha256


def _modality(raw: Path, name: str, path: str, scan: Volume) -> np.ndarray:
    """The voxels of a modality on the grid of the scan."""
    if not path:
        raise Refused("modality-missing", f"no file of {name} belongs to it by name")
    try:
        modality, _ = nifti.read(nifti.locate(raw, path))
    except Refused as refusal:
        raise Refused(refusal.code, f"{name}: {refusal.reason}") from refusal
    return on_grid_of(modality, scan, name)


def on_grid_of(volume: Volume, scan: Volume, name: str = "") -> np.ndarray:
    """Voxels of a volume, linearly resampled where a scan has its own; at the border they go on.

    Refused when the centre of the scan is not in the volume: they show different things.
    """
    assert volume.affine is not None
    assert scan.affine is not None
    shape = scan.data.shape[1:]
    if volume.data.shape == scan.data.shape and np.allclose(
        volume.affine, scan.affine, atol=_SAME_GRID
    ):
        return volume.data
    centre = scan.affine @ [*((np.array(shape) - 1) / 2), 1.0]
    voxel = np.linalg.solve(volume.affine, centre)[:3]
    if (voxel < -0.5).any() or (voxel > np.array(volume.data.shape[1:]) - 0.5).any():
        raise Refused("modality-mismatch", f"{name}: it does not cover the centre of the image")
    from vqmri.scans.resample import to_grid

    return to_grid(volume.data, volume.affine, shape, scan.affine)
