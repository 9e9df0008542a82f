import errno
import hashlib
import logging
import pickle
import re
import shutil
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import UID

from tests.scans import dicom_files as files
from tests.scans.dicom_reading import assert_placed, find, only, outcome, outcomes
from tests.scans.test_dicom_conversion import UNDECODABLE
from tests.scans.test_dicom_image import FAULTY
from vqmri.errors import InputError
from vqmri.scans import dicom
from vqmri.scans.check import Refused
from vqmri.scans.volume import Candidate

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
REAL = SHARED / "dicom"
needs_data = pytest.mark.skipif(not REAL.is_dir(), reason="the shared data are not here")

pytestmark = pytest.mark.usefixtures("temporary")

DICOMDIR = UID("1.2.840.10008.1.3.10")
OTHER = f"{files.STUDY}.7"
"""A second series of the same study."""


# What is read


@pytest.mark.parametrize("bare", [False, True], ids=["with preamble", "bare"])
def test_a_series_of_slices_is_one_volume(raw: Path, temporary: Path, bare: bool) -> None:
    paths = files.write(files.stack(), raw / "a/b", bare=bare)
    candidate = only(raw)
    assert candidate.source == "a/b/IM0000"
    volume, sha256 = dicom.read(raw, candidate)
    assert volume.data.dtype == np.float32
    assert_placed(volume)
    assert sha256 == hashlib.sha256(b"".join(path.read_bytes() for path in paths)).hexdigest()
    assert not list(temporary.iterdir())


def test_an_enhanced_file_is_one_volume(raw: Path) -> None:
    files.write([files.enhanced()], raw)
    assert_placed(dicom.read(raw, only(raw))[0])


def test_names_folders_and_order_mean_nothing(raw: Path) -> None:
    for name, number in zip(["z", "b.txt", "c.nii.gz", "d.dcm", "e", "f"], range(6), strict=True):
        folder = raw / f"disc{number % 2}"
        (path,) = files.write([files.image(5 - number)], folder)
        path.rename(folder / name)
    assert_placed(dicom.read(raw, only(raw))[0])


def test_candidates_travel_between_processes(raw: Path) -> None:
    files.write(files.stack(), raw)
    assert pickle.loads(pickle.dumps(only(raw))) == only(raw)


def test_two_series_in_one_folder_are_two_candidates(raw: Path) -> None:
    files.write(files.stack() + files.stack(4, series=OTHER), raw)
    found = find(raw)
    assert [c.source for c in found] == ["IM0000", "IM0006"]
    assert_placed(dicom.read(raw, found[0])[0])
    assert_placed(dicom.read(raw, found[1])[0], 4)


def test_one_series_of_two_people_is_two_candidates(raw: Path) -> None:
    files.write([*files.stack(), *files.stack(PatientID="other")], raw)
    assert len({c.subject for c in find(raw)}) == 2


def test_other_files_are_passed_over(raw: Path) -> None:
    files.write(files.stack(), raw / "scan")
    (raw / "notes.txt").write_text("Doe^Jane was here")
    (raw / "empty").touch()
    (raw / "scan.nii").write_bytes(bytes(400))
    (raw / "begins.like").write_bytes(b"\x08\x00\x05\x00 and is nothing")
    report = files.image(series=OTHER, Rows=None, Columns=None, PixelData=None, Modality="SR")
    report.SOPClassUID = UID("1.2.840.10008.5.1.4.1.1.88.11")
    directory = files.image(series=OTHER, Rows=None, Columns=None, PixelData=None)
    directory.SOPClassUID = directory.file_meta.MediaStorageSOPClassUID = DICOMDIR
    files.write([report, directory], raw / "others")
    assert only(raw).source == "scan/IM0000"


@pytest.mark.parametrize("empty", [True, False], ids=["empty", "absent"])
def test_a_file_with_the_mark_and_no_class_is_a_damaged_one(raw: Path, empty: bool) -> None:
    made = files.image(SOPClassUID=UID("") if empty else None, Rows=None, Columns=None)
    made.file_meta.MediaStorageSOPClassUID = UID("")
    if not empty:
        del made.file_meta.MediaStorageSOPClassUID
    made.save_as(raw / "file")
    assert outcomes(raw) == {"file": "unreadable"}


def test_the_same_image_twice_counts_once(raw: Path) -> None:
    files.write(files.stack(), raw / "a")
    shutil.copytree(raw / "a", raw / "copy of a")
    assert_placed(dicom.read(raw, only(raw))[0])


# What is refused


def test_a_file_that_is_gone_is_no_fault_of_the_series(raw: Path) -> None:
    paths = files.write(files.stack(), raw)
    candidate = only(raw)
    paths[3].unlink()
    with pytest.raises(FileNotFoundError, match=paths[3].name):
        dicom.read(raw, candidate)


def test_a_disk_that_fails_damages_no_header(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files.write(files.stack(), raw)

    def failing(*_: Any, **__: Any) -> Any:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(pydicom, "dcmread", failing)
    with pytest.raises(OSError, match="IM0000"):
        find(raw)


def test_links_are_not_followed(raw: Path, tmp_path: Path) -> None:
    outside = files.write(files.stack(), tmp_path / "outside")
    for path in outside:
        (raw / path.name).symlink_to(path)
    (raw / "folder").symlink_to(tmp_path / "outside")
    with pytest.raises(InputError, match="links are not followed"):
        find(raw)
    inside = files.write(files.stack(), raw / "inside")
    (raw / "again").symlink_to(inside[0])
    candidate = only(raw)
    assert candidate.source == "inside/IM0000"
    inside[0].unlink()
    inside[0].symlink_to(outside[0])  # between finding and reading
    assert outcome(raw, candidate) == "outside"


def test_a_path_out_of_the_raw_folder_is_refused(raw: Path, tmp_path: Path) -> None:
    files.write(files.stack(), tmp_path / "outside")
    names = tuple(f"../outside/IM{number:04d}" for number in range(6))
    assert outcome(raw, Candidate(names[0], "a", {}, files=names)) == "outside"


# Who and what it is of


def test_the_label_of_a_person_needs_the_key(raw: Path) -> None:
    files.write([*files.stack(2), *files.stack(2, series=OTHER)], raw)
    (one, again) = (c.subject for c in find(raw))
    (other, _) = (c.subject for c in find(raw, subject_key="another"))
    assert one == again != other
    assert re.fullmatch("[0-9a-f]{16}", one)
    assert one not in hashlib.sha256(b"MRN-4711").hexdigest()


def test_without_a_key_people_are_numbered(raw: Path) -> None:
    for number, person in enumerate(["z", "a", "z"]):
        files.write(files.stack(2, series=f"{OTHER}.{number}", PatientID=person), raw / f"{number}")
    people = [c.subject for c in find(raw, subject_key=None)]
    assert people == ["subject0001", "subject0002", "subject0001"]


def test_without_a_patient_id_a_study_is_a_person(raw: Path) -> None:
    for number, study in enumerate(["1.2", "1.3", "1.2"]):
        fields = {"series": f"{OTHER}.{number}", "PatientID": "", "StudyInstanceUID": study}
        files.write(files.stack(2, **fields), raw / f"{number}")
    people = [c.subject for c in find(raw)]
    assert people[0] == people[2] != people[1]


@pytest.mark.parametrize(
    ("text", "age"),
    [
        ("047Y", 47.0), ("018M", 1.5), ("010W", 0.19), ("073D", 0.2), ("090Y", 90.0),
        ("097Y", 90.0), ("000Y", None), ("131Y", None), ("old", 41.0), (None, 41.0),
    ],
)  # fmt: skip
def test_ages(raw: Path, text: str | None, age: float | None) -> None:
    made = files.image(PatientAge=None)
    if text is not None:
        files.plant(made, "PatientAge", "AS", text)
    files.write([made], raw)
    assert only(raw).covariates["age"] == age


@pytest.mark.parametrize(
    ("born", "seen", "age"),
    [
        ("19800228", "20220228", 42.0), ("11111111", "20220228", None), ("", "20220228", None),
        ("20220228", "20220228", None), ("20230101", "20220228", None), ("19800228", "", None),
        ("19009999", "20220228", None), ("19250101", "20220228", 90.0), ("1980", "2022", None),
    ],
)  # fmt: skip
def test_ages_from_dates_are_whole_years(
    raw: Path, born: str, seen: str, age: float | None
) -> None:
    made = files.image(PatientAge=None)
    files.plant(made, "PatientBirthDate", "DA", born)
    files.plant(made, "StudyDate", "DA", seen)
    files.write([made], raw)
    assert only(raw).covariates["age"] == age


@pytest.mark.parametrize(("text", "sex"), [("F", "F"), ("m", "M"), ("O", None), ("", None)])
def test_sexes(raw: Path, text: str, sex: str | None) -> None:
    made = files.image()
    files.plant(made, "PatientSex", "CS", text)
    files.write([made], raw)
    assert only(raw).covariates["sex"] == sex


def test_only_the_covariates_that_are_asked_for_are_kept(raw: Path) -> None:
    files.write([files.image()], raw)
    assert find(raw, covariates=["sex"])[0].covariates == {"sex": "F"}
    assert find(raw, covariates=[])[0].covariates == {}
    with pytest.raises(InputError, match="no covariate 'weight'"):
        find(raw, covariates=["weight"])


def test_series_are_chosen_by_their_description(raw: Path) -> None:
    files.write([files.image(), files.image(series=OTHER, SeriesDescription="FLAIR ax")], raw)
    assert [c.source for c in find(raw, description="*T1*")] == ["IM0000"]
    assert [c.source for c in find(raw, description="flair*")] == ["IM0001"]
    with pytest.raises(InputError, match=r"whose SeriesDescription matches 'T2'"):
        find(raw, description="T2")


def test_an_empty_key_is_an_error(raw: Path) -> None:
    with pytest.raises(InputError, match="subject_key is empty"):
        find(raw, subject_key="")


def test_find_of_nothing_is_an_error(raw: Path) -> None:
    with pytest.raises(InputError, match="no DICOM series of images in"):
        find(raw)


# What must not leave

CANARIES = [f"CANARY{number:02d}" for number in range(50)]
STANDARD = [
    ("PatientName", "PN"), ("PatientID", "LO"), ("OtherPatientIDs", "LO"),
    ("PatientAddress", "LO"), ("PatientComments", "LT"), ("PatientBirthName", "PN"),
    ("PatientMotherBirthName", "PN"), ("ReferringPhysicianName", "PN"), ("InstitutionName", "LO"),
    ("InstitutionAddress", "ST"), ("StationName", "SH"), ("StudyDescription", "LO"),
    ("SeriesDescription", "LO"), ("ProtocolName", "LO"), ("SequenceName", "SH"),
    ("OperatorsName", "PN"), ("AccessionNumber", "SH"), ("StudyID", "SH"),
    ("ImageComments", "LT"), ("DeviceSerialNumber", "LO"), ("BodyPartExamined", "CS"),
    ("Manufacturer", "LO"), ("ManufacturerModelName", "LO"), ("PatientBirthDate", "DA"),
    ("StudyDate", "DA"), ("PatientSex", "CS"), ("PatientAge", "AS"),
]  # fmt: skip


def plant_all(made: Dataset) -> None:
    """Every canary in a field of its own: standard, private and nested ones in turn."""
    left = iter(CANARIES)
    for (tag, kind), canary in zip(STANDARD, left, strict=False):
        files.plant(made, tag, kind, canary)
    made.remove_private_tags()
    block = made.private_block(0x0029, "SIEMENS CSA HEADER", create=True)
    private = list(left)
    for number, canary in enumerate(private[:12]):
        block.add_new(number, "LO", canary)
    item = Dataset()
    for number, canary in enumerate(private[12:]):
        inner = Dataset()
        inner.PersonName = inner.CodeMeaning = canary
        item.private_block(0x0031, f"MAKER {number}", create=True).add_new(1, "UT", canary)
        item.add_new(0x00080000 + 0x1110 + number, "SQ", Items([inner]))
    made.RequestAttributesSequence = Items([item])


def hostile(number: int) -> list[Any]:
    """The files of one series of the canary test; most series have some fault."""
    kinds: list[Callable[[], list[Any]]] = [
        lambda: list(files.stack(5)),
        lambda: list(files.stack(5)),
        *(make for make, _ in (FAULTY | UNDECODABLE).values()),
    ]
    made = (kinds[number % len(kinds)]() + list(files.stack(5)))[:5] if number > 1 else kinds[0]()
    for each in made:
        each.SeriesInstanceUID = f"{OTHER}.{number}"
        plant_all(each)
    if number % 7 == 3:
        files.plant(made[0], "Modality", "CS", "CANARY00")
    if number % 7 == 4:
        files.plant(made[0], "PhotometricInterpretation", "CS", "CANARY01")
    if number % 7 == 5:
        files.plant(made[0], "SOPInstanceUID", "UI", "CANARY02")
    return made


def test_no_text_of_a_header_leaves(
    raw: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    count = 0
    for number in range(28):
        paths = files.write(hostile(number), raw / f"{number:02d}")
        count += len(paths)
        if number % 7 == 6:  # a text where numbers are
            data = paths[0].read_bytes()
            paths[0].write_bytes(data.replace(b"-30.00000000", b"CANARY03BIRD"))
        if number % 5 == 4:
            paths[-1].write_bytes(paths[-1].read_bytes()[: 300 + 100 * number])
    assert count >= 100
    assert sum(b"CANARY49" in path.read_bytes() for path in raw.rglob("IM*")) >= 100
    caplog.clear()  # of what writing such files says
    said, read = [], 0
    for key in ("secret", None):
        for candidate in find(raw, subject_key=key):
            said.append(repr(candidate))
            try:
                volume, sha256 = dicom.read(raw, candidate)
            except Refused as refused:
                said += [repr(refused), *traceback.format_exception(refused)]
            else:
                read += 1
                said += [sha256, repr(volume), str(volume.data.astype("u1").tobytes())]
    assert read >= 4
    said += [caplog.text, *capfd.readouterr()]
    everything = "\n".join(said)
    assert "CANARY" not in everything
    assert files.STUDY not in everything
    assert "MRN-4711" not in everything


# Real data

ONE_VOLUME = {
    "siemens_xa30_enhanced_t1w/5_anat-T1w_acq-tfl": "5_anat-T1w_acq-tfl.nii",
    "siemens_xa30_enhanced_t1w/6_anat-T1w_acq-tfl": "6_anat-T1w_acq-tfl.nii",
    "siemens_t1_sag_positions/HFP": None,  # they come without a reference
    "siemens_t1_sag_positions/HFS": None,
}


@needs_data
def test_every_real_series_is_read_or_refused_as_it_should() -> None:
    found = {str(Path(c.source).parent): (outcome(REAL, c), c) for c in find(REAL)}
    assert {name for name, (code, _) in found.items() if code == "read"} == set(ONE_VOLUME)
    assert {name: code for name, (code, _) in found.items() if code != "read"} == {
        "dcm_qa_12bit/In": "not-one-volume",
        "dcm_qa_enh/In/Philips": "not-one-volume",
        "dcm_qa_enh/In/Siemens/XA10": "not-one-volume",
        "dcm_qa_nih/20180918GE/mr_0004": "not-one-volume",
        **{f"dcm_qa_nih/20180918Si/mr_000{n}": "not-one-volume" for n in (3, 4, 5, 6)},
    }
    assert len(found["dcm_qa_nih/20180918GE/mr_0004"][1].files) == 150


@needs_data
def test_two_positions_of_one_head_are_of_one_person() -> None:
    people = {c.subject for c in find(REAL / "siemens_t1_sag_positions")}
    assert len(people) == 1
