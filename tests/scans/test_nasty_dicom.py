"""Odd and real DICOM, against tables written from what pydicom alone says of the headers.

Rules of the tables: a series is one volume where each of its slices has a place of its own and the
places are even. Of a 2D acquisition the first axis of the volume runs along a row, its second up a
column and its third along their cross product; one acquired in 3D is turned to the nearest of RAS.
What is no image of MR is refused; an object without an image, and what has neither DICOM's mark nor
its class, is not found.
"""

import csv
import shutil
from collections import Counter
from pathlib import Path

import nibabel as nib
import pytest

from tests.conftest import tiny_values
from tests.scans import dicom_files
from tests.scans.test_nasty import EVERY
from vqmri.errors import InputError
from vqmri.layout import Layout
from vqmri.params import Params
from vqmri.scans import dicom
from vqmri.scans.check import REFUSALS, Refused
from vqmri.scans.volume import Candidate
from vqmri.stages.ingest import ingest

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
NASTY, REAL = DATA / "nasty", DATA / "dicom"
here = pytest.mark.skipif(not DATA.is_dir(), reason="the shared data are not here")

ODD = {row["path"]: row for row in EVERY if row["reader"] == "dicom"}
with Path(__file__).with_name("dicom_expected.tsv").open(newline="") as _file:
    SERIES = {row["path"]: row for row in csv.DictReader(_file, delimiter="\t")}
KEYS = ("outcome", "code", "shape", "spacing", "orientation")


def found(raw: Path) -> list[Candidate]:
    return dicom.find(raw, description=None, subject_key=None, covariates=[])


def seen(raw: Path, candidate: Candidate) -> dict[str, str]:
    """What reading gives, in the columns of the tables; of a refused series no geometry is."""
    try:
        volume, sha256 = dicom.read(raw, candidate)
    except Refused as refusal:
        return {"outcome": "refused", "code": refusal.code}
    assert volume.affine is not None
    assert len(sha256) == 64
    return {
        "outcome": "accepted",
        "code": "",
        "shape": "x".join(map(str, volume.data.shape[1:])),
        "spacing": " ".join(f"{round(s, 4):g}" for s in volume.spacing),
        "orientation": "".join(nib.aff2axcodes(volume.affine)),
    }


def expected(row: dict[str, str]) -> dict[str, str]:
    keys = KEYS if row["outcome"] == "accepted" else KEYS[:2]
    return {key: row[key] for key in keys}


def test_the_tables_cite_codes_that_exist() -> None:
    assert {row["reader"] for row in EVERY} == {"nifti", "dicom"}  # each has its test
    for row in SERIES.values():
        assert row["outcome"] in {"accepted", "refused"}, row
        assert (row["outcome"] == "refused") == (row["code"] in REFUSALS), row
        assert row["reason"], row
        assert (row["outcome"] == "accepted") == bool(row["spacing"] and row["orientation"]), row


@here
@pytest.mark.parametrize("path", ODD)
def test_an_odd_file_alone_has_the_expected_outcome(tmp_path: Path, path: str) -> None:
    shutil.copyfile(NASTY / path, tmp_path / "file")
    if ODD[path]["outcome"] == "not-found":
        with pytest.raises(InputError, match="no DICOM series of images"):
            found(tmp_path)
        return
    (candidate,) = found(tmp_path)
    assert seen(tmp_path, candidate) == expected(ODD[path])


@here
def test_of_all_odd_files_those_of_the_table_are_found() -> None:
    names = Counter(name for candidate in found(NASTY) for name in candidate.files)
    there = {path for path, row in ODD.items() if row["outcome"] != "not-found"}
    assert set(names) == there
    assert set(names.values()) == {1}


@here
def test_the_table_has_every_real_series() -> None:
    assert {c.source: str(len(c.files)) for c in found(REAL)} == {
        path: row["files"] for path, row in SERIES.items()
    }


@here
@pytest.mark.parametrize("path", SERIES)
def test_a_real_series_has_the_expected_outcome(path: str) -> None:
    (candidate,) = (
        Candidate(f"{Path(path).parent}/{c.source}", c.subject, {}, files=c.files)
        for c in found((REAL / path).parent)
    )
    assert candidate.source == path
    assert seen((REAL / path).parent, candidate) == expected(SERIES[path])


@here
def test_ingest_of_all_real_series_and_two_good_ones_loses_nothing(tmp_path: Path) -> None:
    shutil.copytree(REAL, tmp_path / "raw", copy_function=shutil.copyfile)
    for folder in (tmp_path / "raw", *(tmp_path / "raw").rglob("*/")):
        folder.chmod(0o755)  # the shared data may not be written to
    good = ["good/0/IM0000", "good/1/IM0000"]
    for number, name in enumerate(good):
        series = f"{dicom_files.STUDY}.7.{number}"
        slices = dicom_files.stack(series=series, PatientID=f"person {number}")
        dicom_files.write(slices, (tmp_path / "raw" / name).parent)
    values = tiny_values()
    values["ingest"] |= {"raw": "raw", "spacing": [2.0, 2.0, 2.0], "source": {"kind": "dicom"}}
    metrics = ingest(Params.model_validate(values), Layout(tmp_path))
    with (Layout(tmp_path).output("volumes") / "rejections.tsv").open(newline="") as file:
        codes = {row["source"]: row["code"] for row in csv.DictReader(file, delimiter="\t")}
    assert codes == {path: row["code"] for path, row in SERIES.items() if row["code"]}
    assert metrics["rejected"] == len(codes)
    assert metrics["volumes"] == len(SERIES) - len(codes) + len(good)
