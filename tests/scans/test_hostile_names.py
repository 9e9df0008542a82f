"""Names in raw data lead nowhere: ingest writes below data/ alone, whatever files and people are
called. A name that no label can be made of is refused in words.
"""

import csv
import os
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.conftest import tiny_values
from tests.payloads import tree
from tests.scans import dicom_files
from vqmri.errors import InputError
from vqmri.layout import Layout
from vqmri.params import Params
from vqmri.scans import nifti
from vqmri.scans.store import VolumeStore
from vqmri.stages.ingest import ingest

PEOPLE = (
    "../../../evil1",
    "/evil2",
    "..\\evil3",
    "evil4\n../../evil",
    "evil5\0",
    "e" * 5000,
    "<b>",
)
FILES = (
    "a\nb",
    "..",
    "...",
    "-rf",
    "%2e%2e%2f",
    "$(touch canary)",
    "a\\..\\b",
    "e" * 200,
    "é",
    " ",
)
ENTITIES = ("sub-../../evil", "sub-a/../../evil", "sub-\nevil", "sub-")


def save(path: Path, number: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(number)
    image: Any = nib.Nifti1Image(
        random.random((6, 6, 6), dtype=np.float32), np.diag([10.0, 10, 10, 1])
    )
    path.with_name("written.nii.gz").unlink(missing_ok=True)
    nib.save(image, path.with_name("written.nii.gz"))
    path.with_name("written.nii.gz").rename(path)


def params(**source: Any) -> Params:
    values = tiny_values()
    values["ingest"] |= {"raw": "raw", "held_out": 0.4, "source": source}
    return Params.model_validate(values)


def written(root: Path, settings: Params) -> set[str]:
    """Below `root`, by an ingest."""
    project = root / "some" / "project"
    before = tree(root)
    ingest(settings, Layout(project))
    new = tree(root) - before
    assert len(new) > 5
    assert all(path.startswith("some/project/data") for path in new)
    assert all("evil" not in path and "canary" not in path for path in new)
    return new


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    folder = tmp_path / "some/project/raw"
    folder.mkdir(parents=True)
    return folder


def test_files_of_any_name(raw: Path, tmp_path: Path) -> None:
    for number, name in enumerate(FILES):
        save(raw / f"{name}.nii.gz", number)
        save(raw / f"{name}x" / f"{name}.nii.gz", 100 + number)
    written(tmp_path, params(kind="nifti", images="**/*"))
    records = VolumeStore(raw.parent / "data/volumes").records
    assert len(records) == 2 * sum(not name.startswith(".") for name in FILES), "none is hidden"


def test_a_file_whose_name_is_no_text(raw: Path, tmp_path: Path) -> None:
    for number in range(3):
        save(raw / f"{number}.nii.gz", number)
    (raw / "0.nii.gz").rename(os.fsdecode(bytes(raw / "scan") + b"\xff\xfe.nii.gz"))
    with pytest.raises(InputError, match=r"scan\\udcff\\udcfe.nii.gz is no text"):
        written(tmp_path, params(kind="nifti", images="*.nii.gz"))


def test_people_of_any_name_in_a_table(raw: Path, tmp_path: Path) -> None:
    rows = [("file", "who", "site")]
    for number, name in enumerate(PEOPLE):
        save(raw / f"{number}.nii.gz", number)
        rows.append((f"{number}.nii.gz", name, name))
    with (raw / "table.tsv").open("w", newline="") as file:
        csv.writer(file, delimiter="\t").writerows(rows)
    written(
        tmp_path,
        params(
            kind="nifti", images="*.nii.gz", table="table.tsv", subject_column="who",
            covariates=["site"],
        ),
    )  # fmt: skip
    records = VolumeStore(raw.parent / "data/volumes").records
    assert {r.subject for r in records} >= {"evil1", "evil2", "evil3", "evil4evil", "evil5", "b"}


@pytest.mark.parametrize("table", [b"\xff\xfe", b"file\tsubject\n" + b"x" * 200_000])
def test_a_table_that_is_none_is_refused(raw: Path, table: bytes) -> None:
    save(raw / "0.nii.gz", 0)
    (raw / "table.tsv").write_bytes(table)
    with pytest.raises(InputError, match="no table in UTF-8"):
        ingest(params(kind="nifti", images="*.nii.gz", table="table.tsv"), Layout(raw.parent))


def test_patients_and_series_of_any_name(raw: Path, tmp_path: Path) -> None:
    for number, name in enumerate(PEOPLE):
        images = dicom_files.stack(5)
        for image in images:
            for tag in ("PatientID", "PatientName", "SeriesDescription", "StudyID"):
                dicom_files.plant(image, tag, "LO", name)
            dicom_files.plant(image, "SeriesInstanceUID", "UI", f"../../evil/{number}")
            dicom_files.plant(image, "StudyInstanceUID", "UI", f"/evil/{number}")
            dicom_files.plant(
                image, "SOPInstanceUID", "UI", f"../../../evil.{number}.{image.InstanceNumber}"
            )
        dicom_files.write(images, raw / str(number))
    new = written(tmp_path, params(kind="dicom", covariates=["sex"]))
    assert "some/project/data/volumes/MANIFEST.json" in new


def test_a_bids_name_that_leads_outside_is_none(raw: Path, tmp_path: Path) -> None:
    for number in range(3):
        save(raw / f"sub-{number}/anat/sub-{number}_T1w.nii.gz", number)
    for number, entity in enumerate(ENTITIES):
        folder = raw / "sub-x" / "anat"
        folder.mkdir(parents=True, exist_ok=True)
        save(folder / f"{entity.replace('/', '_')}_T1w.nii.gz", number)
    (raw / "participants.tsv").write_text(
        "participant_id\tsite\n" + "".join(f"sub-{n}\t../../evil{n}\n" for n in range(3))
    )
    written(tmp_path, params(kind="bids", covariates=["site"]))
    records = VolumeStore(raw.parent / "data/volumes").records
    assert {record.subject for record in records} == {"0", "1", "2"}


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="/\0"), max_size=80))
def test_a_subjects_label_is_letters_and_digits(name: str) -> None:
    label = nifti._subject(Path(name) / f"{name}.nii.gz", alone=False)
    assert label.isascii()
    assert label.isalnum()
