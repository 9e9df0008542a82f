"""How the tests of DICOM find and read, and what they expect of the synthetic series."""

from pathlib import Path
from typing import Any

import numpy as np

from tests.scans import dicom_files as files
from vqmri.scans import dicom
from vqmri.scans.check import Refused
from vqmri.scans.volume import Candidate, Volume


def find(raw: Path, **options: Any) -> list[Candidate]:
    defaults = {"description": None, "subject_key": "secret", "covariates": ["age", "sex"]}
    return dicom.find(raw, **defaults | options)


def only(raw: Path) -> Candidate:
    (candidate,) = find(raw)
    return candidate


def outcome(raw: Path, candidate: Candidate) -> str:
    """The code of the refusal, or "read"."""
    try:
        dicom.read(raw, candidate)
    except Refused as refused:
        return refused.code
    return "read"


def outcomes(raw: Path) -> dict[str, str]:
    return {candidate.source: outcome(raw, candidate) for candidate in find(raw)}


def assert_placed(volume: Volume, count: int = files.SLICES) -> None:
    """Every pixel is in the volume where its header says."""
    assert volume.affine is not None
    assert volume.data.size == count * files.ROWS * files.COLUMNS
    row, column = np.mgrid[: files.ROWS, : files.COLUMNS]
    for number in range(count):
        place = files.position(number)[:, None, None] + (
            files.COLUMN[:, None, None] * row * files.SPACING[0]
            + files.ROW[:, None, None] * column * files.SPACING[1]
        )
        world = place.reshape(3, -1) * [[-1], [-1], [1]]
        voxel = np.linalg.solve(volume.affine[:3, :3], world - volume.affine[:3, 3:])
        index = np.rint(voxel).astype(int)
        assert np.abs(voxel - index).max() < 1e-3
        assert np.array_equal(volume.data[0][tuple(index)], files.pixels(number).ravel())
