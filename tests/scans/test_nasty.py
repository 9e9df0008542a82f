"""Odd and damaged files of others, against a table written from what nibabel alone says of them.

Rule of the table: a finite real-valued image of three axes with an affine is accepted, unless a
code of `check.REFUSALS` is cited. Rows of another reader are its own test's.
"""

import csv
import shutil
from collections import Counter
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from tests.conftest import tiny_values
from vqmri.layout import Layout
from vqmri.params import Params
from vqmri.scans import nifti
from vqmri.scans.check import REFUSALS, Refused
from vqmri.stages.ingest import ingest

NASTY = Path(__file__).resolve().parents[3] / "shared" / "data" / "nasty"
TABLE = Path(__file__).with_name("nasty_expected.tsv")
here = pytest.mark.skipif(not NASTY.is_dir(), reason="the shared data are not here")

with TABLE.open(newline="") as _file:
    EVERY = list(csv.DictReader(_file, delimiter="\t"))
ROWS = [row for row in EVERY if row["reader"] == "nifti"]
SCANS = {row["path"]: row for row in ROWS if row["outcome"] != "not-found"}


def found(raw: Path) -> list[str]:
    candidates = nifti.find(
        raw, images="**/*", modalities={}, labels=None, table=None, file_column="file",
        subject_column="subject", covariates=[],
    )  # fmt: skip
    return [candidate.source for candidate in candidates]


def test_the_table_cites_codes_that_exist() -> None:
    for row in EVERY:
        assert row["outcome"] in {"accepted", "refused", "not-found"}, row
        assert (row["outcome"] == "refused") == bool(row["code"]), row
        assert not row["code"] or row["code"] in REFUSALS, row
        assert row["reason"], row


@here
def test_the_table_has_every_file_and_what_is_found_is_what_it_says() -> None:
    there = {path.relative_to(NASTY).as_posix() for path in NASTY.rglob("*") if path.is_file()}
    assert [row["path"] for row in EVERY if row["path"] not in there] == []
    assert len(EVERY) == len({row["path"] for row in EVERY}) == len(there)
    assert found(NASTY) == sorted(SCANS, key=Path)


@here
@pytest.mark.parametrize("path", SCANS)
def test_the_outcome_is_the_expected_one(path: str) -> None:
    row = SCANS[path]
    try:
        volume, sha256 = nifti.read(nifti.locate(NASTY, path))
    except Refused as refusal:
        assert ("refused", refusal.code) == (row["outcome"], row["code"]), refusal.reason  # noqa: PT017
        return
    assert volume.affine is not None
    assert len(sha256) == 64
    assert {
        "outcome": "accepted",
        "shape": "x".join(map(str, volume.data.shape[1:])),
        "spacing": " ".join(f"{round(s, 4):g}" for s in volume.spacing),
        "orientation": "".join(nib.aff2axcodes(volume.affine)),
    } == {key: row[key] for key in ("outcome", "shape", "spacing", "orientation")}


@here
def test_ingest_of_all_of_them_and_two_good_scans_loses_nothing(tmp_path: Path) -> None:
    shutil.copytree(NASTY, tmp_path / "raw", copy_function=shutil.copyfile)
    (tmp_path / "raw").chmod(0o755)
    for name in ("good1.nii.gz", "good2.mgz"):
        data = np.random.default_rng(0).random((14, 26, 16)).astype(np.float32)
        kind = nib.MGHImage if name.endswith("mgz") else nib.Nifti1Image
        nib.save(kind(data, np.diag([10.0, 10, 10, 1])), tmp_path / "raw" / name)
    values = tiny_values()
    values["ingest"] |= {"raw": "raw", "source": {"kind": "nifti", "images": "**/*"}}
    metrics = ingest(Params.model_validate(values), Layout(tmp_path))
    with (Layout(tmp_path).output("volumes") / "rejections.tsv").open(newline="") as file:
        codes = {row["source"]: row["code"] for row in csv.DictReader(file, delimiter="\t")}
    assert metrics["volumes"] + metrics["rejected"] == len(SCANS) + 2
    assert not {"good1.nii.gz", "good2.mgz"} & set(codes)
    for path, row in SCANS.items():
        if row["outcome"] == "refused":
            assert codes.pop(path) == row["code"]
    # what is left are label maps, so sparse that no percentiles give them a scale
    assert set(codes) <= {path for path, row in SCANS.items() if row["outcome"] == "accepted"}
    assert set(Counter(codes.values())) <= {"constant"}, codes
