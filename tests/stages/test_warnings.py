import csv
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from tests.conftest import tiny_values
from vqmri.layout import Layout
from vqmri.params import Params
from vqmri.scans.quality import WARNINGS_TABLE
from vqmri.scans.store import VolumeStore
from vqmri.stages.ingest import ingest

AFFINE = np.diag([10.0, 10.0, 10.0, 1.0])


def write(path: Path, seed: int, shift: float) -> None:
    """A scan whose qform is `shift` mm away from its sform."""
    data = np.random.default_rng(seed).random((14, 26, 16)).astype(np.float32)
    image: Any = nib.Nifti1Image(data, AFFINE)
    image.set_sform(AFFINE, code=1)
    image.set_qform(AFFINE + np.eye(4, k=3) * shift, code=1)
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(image, path)


def test_a_scan_whose_forms_disagree_is_accepted_and_warned_of(tmp_path: Path) -> None:
    for number in range(4):
        write(tmp_path / f"raw/good{number}.nii.gz", number, 0)
    write(tmp_path / "raw/odd.nii.gz", 4, 25)
    write(tmp_path / "raw/twisted.nii", 5, 0)
    with (tmp_path / "raw/twisted.nii").open("r+b") as file:
        file.seek(256)  # quatern_b, which cannot be so large in a rotation
        file.write(np.float32(3).tobytes())
    values = tiny_values()
    values["ingest"] |= {"raw": "raw", "source": {"kind": "nifti", "images": "*.nii*"}}
    data = Layout(tmp_path)
    metrics = ingest(Params.model_validate(values), data)
    assert metrics["volumes"] == 6
    assert metrics["rejected"] == 0
    assert metrics["warnings"] == 2
    records = {record.source: record for record in VolumeStore(data.output("volumes")).records}
    assert records["odd.nii.gz"].affine == records["good0.nii.gz"].affine == AFFINE.tolist()
    with (data.output("volumes") / WARNINGS_TABLE).open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    assert rows == [
        {"source": "odd.nii.gz", "code": "forms-disagree", "reason": "a corner is 25 mm apart"},
        {
            "source": "twisted.nii",
            "code": "forms-disagree",
            "reason": "the qform cannot be computed or is not finite",
        },
    ]
