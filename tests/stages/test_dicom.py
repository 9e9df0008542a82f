"""A scanner's export through the stage ingest."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import tiny_values
from tests.scans.dicom_files import SLICES, STUDY, image
from vqmri.errors import ParamsError
from vqmri.layout import Layout
from vqmri.params import Params
from vqmri.scans.store import VolumeStore
from vqmri.stages.ingest import ingest

CANARIES = ["Quetzal^Ursula", "MRN-887766", "19471103", "Dr^Canary", "9.8.7.6.5"]


def export(raw: Path, patients: int) -> None:
    """One series per patient and, of the last one, a second one without its middle slice."""
    for patient in range(patients + 1):
        person = min(patient, patients - 1)
        for number in range(SLICES):
            if patient == patients and number == SLICES // 2:
                continue
            slice_ = image(
                number,
                series=f"{STUDY}.9.8.7.6.5.{patient}",
                PatientName=CANARIES[0],
                PatientID=f"{CANARIES[1]}-{person}",
                PatientBirthDate=CANARIES[2],
                ReferringPhysicianName=CANARIES[3],
                PatientAge=f"0{30 + person}Y",
                StudyInstanceUID=f"{STUDY}.{person}",
            )
            path = raw / f"IM{patient}" / f"{number:04d}"
            path.parent.mkdir(parents=True, exist_ok=True)
            slice_.save_as(path)
    (raw / "readme.txt").write_text("exported")


def params(subject_key: str | None = None, **source: Any) -> Params:
    values = tiny_values()
    values["ingest"] |= {"raw": "raw", "held_out": 0.3, "subject_key": subject_key}
    values["ingest"]["source"] = {"kind": "dicom", **source}
    return Params.model_validate(values)


@pytest.fixture
def project(tmp_path: Path) -> Layout:
    export(tmp_path / "raw", 4)
    return Layout(tmp_path)


def written(folder: Path) -> Iterator[tuple[Path, bytes]]:
    return ((path, path.read_bytes()) for path in folder.rglob("*") if path.is_file())


def test_series_become_volumes_and_a_faulty_one_a_row(
    project: Layout, capfd: pytest.CaptureFixture[str]
) -> None:
    metrics = ingest(params(covariates=["age", "sex"]), project)
    assert (metrics["volumes"], metrics["rejected"]) == (4, 1)
    folder = project.output("volumes")
    rows = (folder / "rejections.tsv").read_text().splitlines()
    assert rows[1].startswith("IM4/0000\tslices-missing\t")
    records = VolumeStore(folder).records
    assert sorted(record.covariates["age"] for record in records) == [30, 31, 32, 33]
    assert {record.covariates["sex"] for record in records} == {"F"}
    assert sorted(record.subject for record in records) == [f"subject000{n}" for n in (1, 2, 3, 4)]
    spoken = "".join(capfd.readouterr())
    for canary in CANARIES:
        assert canary not in spoken
        for path, content in written(folder):
            assert canary.encode() not in content, path


def test_a_key_names_subjects_and_is_written_nowhere(project: Layout) -> None:
    (project.root / "key").write_text("a-secret-of-ours\n")
    ingest(params(subject_key="key"), project)
    folder = project.output("volumes")
    first = {record.subject for record in VolumeStore(folder).records}
    assert all(len(subject) == 16 for subject in first)
    assert not any(b"a-secret-of-ours" in content for _, content in written(folder))
    (project.root / "key").write_text("another")
    ingest(params(subject_key="key"), project)
    assert first.isdisjoint(record.subject for record in VolumeStore(folder).records)


def test_a_missing_key_is_an_error(project: Layout) -> None:
    with pytest.raises(ParamsError, match=r"ingest\.subject_key: .* missing or empty"):
        ingest(params(subject_key="key"), project)
