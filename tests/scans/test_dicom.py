import hashlib
import logging
import pickle
import random
import re
import shutil
import subprocess
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import UID

from tests.scans import dicom_files as files
from vqmri.errors import InputError
from vqmri.scans import dicom, dicom_conversion
from vqmri.scans.check import Refused
from vqmri.scans.volume import Candidate, Volume

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
REAL = SHARED / "dicom"
NASTY = SHARED / "nasty" / "pydicom"
needs_data = pytest.mark.skipif(not REAL.is_dir(), reason="the shared data are not here")

DICOMDIR = UID("1.2.840.10008.1.3.10")
OTHER = f"{files.STUDY}.7"
"""A second series of the same study."""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the module puts its copies; the tests look whether it cleans up."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    folder = tmp_path / "raw"
    folder.mkdir()
    return folder


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
    assert sha256 == dicom.digest(raw, candidate)
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


def test_the_same_image_twice_counts_once(raw: Path) -> None:
    files.write(files.stack(), raw / "a")
    shutil.copytree(raw / "a", raw / "copy of a")
    assert_placed(dicom.read(raw, only(raw))[0])


# What is refused


def without(number: int) -> list[Dataset]:
    return [image for i, image in enumerate(files.stack(7)) if i != number]


def replaced(number: int, image: Dataset) -> list[Dataset]:
    return [image if i == number else slice_ for i, slice_ in enumerate(files.stack())]


def moved(shift: float) -> list[Dataset]:
    place = [f"{v:.8f}" for v in files.position(2) + shift * files.NORMAL]
    return replaced(2, files.image(2, ImagePositionPatient=place))


def rgb() -> list[Dataset]:
    picture = bytes(3 * files.ROWS * files.COLUMNS)
    fields: dict[str, Any] = {
        "SamplesPerPixel": 3,
        "PhotometricInterpretation": "RGB",
        "PlanarConfiguration": 0,
    }
    bits: dict[str, Any] = {"BitsAllocated": 8, "BitsStored": 8, "HighBit": 7, "PixelData": picture}
    return list(files.stack(**fields, **bits))


def echoes() -> list[Dataset]:
    second = files.stack(EchoTime=5.0)
    for image in second:
        image.SOPInstanceUID += "9"
    return [*files.stack(), *second]


FAULTY: dict[str, tuple[Callable[[], list[Any]], str]] = {
    "RGB": (rgb, "not-real"),
    "inverted": (lambda: files.stack(PhotometricInterpretation="MONOCHROME1"), "not-real"),
    "CT": (lambda: files.stack(Modality="CT"), "not-mr"),
    "no modality": (lambda: files.stack(Modality=None), "not-mr"),
    "missing slice": (lambda: without(3), "slices-missing"),
    "shifted slice": (lambda: moved(0.5), "slices-missing"),
    "slice at another's place": (lambda: moved(files.STEP), "not-one-volume"),
    "two echoes": (echoes, "not-one-volume"),
    "one UID, two images": (
        lambda: replaced(2, files.image(2, SOPInstanceUID=f"{files.SERIES}.1")),
        "not-one-volume",
    ),
    "mosaic": (
        lambda: files.stack(1, ImageType=["ORIGINAL", "PRIMARY", "M", "MOSAIC"]),
        "not-one-volume",
    ),
    "localizer": (
        lambda: files.stack(3, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]),
        "not-one-volume",
    ),
    "three directions": (
        lambda: replaced(2, files.image(2, ImageOrientationPatient=[1, 0, 0, 0, 1, 0])),
        "not-one-volume",
    ),
    "two sizes": (
        lambda: replaced(2, files.image(2, Rows=4, PixelData=bytes(80))),
        "not-one-volume",
    ),
    "one slice": (lambda: files.stack(1), "not-3d"),
    "no position": (lambda: files.stack(ImagePositionPatient=None), "no-affine"),
    "no orientation": (lambda: files.stack(ImageOrientationPatient=None), "no-affine"),
    "zero orientation": (lambda: files.stack(ImageOrientationPatient=[0] * 6), "bad-affine"),
    "frames without places": (
        lambda: [files.enhanced(PerFrameFunctionalGroupsSequence=Items([]))],
        "no-affine",
    ),
    "missing frame": (
        lambda: [files.enhanced(NumberOfFrames=5)],
        "no-affine",
    ),
    "no pixels": (lambda: files.stack(PixelData=None), "unreadable"),
    "too few pixels": (lambda: files.stack(PixelData=bytes(80)), "unreadable"),
    "promises much": (lambda: [files.enhanced(Rows=65535, Columns=65535)], "too-large"),
    "constant": (lambda: files.stack(PixelData=bytes(160)), "constant"),
    "lossy 12 bit JPEG": (
        lambda: [files.compressed(n, "1.2.840.10008.1.2.4.51") for n in range(6)],
        "dicom-conversion",
    ),
    "MPEG2": (
        lambda: [files.compressed(n, "1.2.840.10008.1.2.4.100") for n in range(6)],
        "dicom-conversion",
    ),
    "damaged JPEG 2000": (
        lambda: [files.compressed(n, "1.2.840.10008.1.2.4.90") for n in range(6)],
        "dicom-conversion",
    ),
}


@pytest.mark.parametrize("name", FAULTY)
def test_faulty_series_are_refused(raw: Path, temporary: Path, name: str) -> None:
    make, code = FAULTY[name]
    files.write(make(), raw)
    assert outcomes(raw) == {"IM0000": code}
    assert not list(temporary.iterdir())


@pytest.mark.parametrize("length", [130, 140, 200, 400, 700, -161, -1])
def test_a_file_cut_anywhere_is_never_silent(raw: Path, length: int) -> None:
    """Its header is gone and it is a candidate of its own, or its series is refused."""
    path = files.write(files.stack(), raw)[2]
    path.write_bytes(path.read_bytes()[:length])
    found = outcomes(raw)
    assert "unreadable" in found.values() or length < 132
    assert found["IM0000"] in ("unreadable", "slices-missing")


def test_compressed_pixels_that_end_early_are_refused(raw: Path) -> None:
    """dcm2niix itself decodes what there is, and says nothing."""
    paths = files.write([files.compressed(n, "1.2.840.10008.1.2.4.90") for n in range(6)], raw)
    paths[5].write_bytes(paths[5].read_bytes()[:-9])
    assert outcomes(raw) == {"IM0000": "unreadable"}


def test_a_deflated_file_is_not_inflated(raw: Path) -> None:
    made = files.image()
    made.file_meta.TransferSyntaxUID = UID("1.2.840.10008.1.2.1.99")
    files.write([made], raw)
    assert outcomes(raw) == {"IM0000": "dicom-conversion"}
    assert only(raw).subject == "unknown"  # nor was it to find it


def test_a_file_that_is_gone_is_refused(raw: Path) -> None:
    paths = files.write(files.stack(), raw)
    candidate = only(raw)
    paths[3].unlink()
    assert outcome(raw, candidate) == "unreadable"


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


def test_dcm2niix_is_stopped_in_time(raw: Path, temporary: Path) -> None:
    files.write(files.stack(), raw)
    with pytest.raises(Refused, match="dicom-conversion: dcm2niix took longer than 1e-05 s"):
        dicom.read(raw, only(raw), timeout_s=1e-5)
    assert not list(temporary.iterdir())


@pytest.mark.parametrize("change", ["shift", "lose a slice"])
def test_a_conversion_that_is_not_faithful_is_refused(
    raw: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    convert = dicom_conversion.convert

    def worse(folder: Path, timeout_s: float) -> Path:
        path = convert(folder, timeout_s)
        image: Any = nib.load(path)
        data, affine = np.asarray(image.dataobj).copy(), image.affine.copy()
        affine[2, 3] += 0.3
        kept = (data, affine) if change == "shift" else (data[..., 1:], image.affine)
        nib.save(nib.Nifti1Image(*kept), path)
        return path

    monkeypatch.setattr(dicom_conversion, "convert", worse)
    files.write(files.stack(), raw)
    assert outcomes(raw) == {"IM0000": "dicom-conversion"}


@pytest.mark.parametrize(
    ("code", "outputs", "refusal"),
    [
        (0, 0, "not-one-volume: dcm2niix made 0 volumes of it"),
        (0, 2, "not-one-volume: dcm2niix made 2 volumes of it"),
        (-11, 1, "dicom-conversion: dcm2niix ended with exit code -11: it was killed"),
        (10, 1, "exit code 10: it found an incomplete volume"),
        (99, 1, "exit code 99: see its documentation"),
    ],
)
def test_what_dcm2niix_leaves_is_heeded(
    raw: Path, monkeypatch: pytest.MonkeyPatch, code: int, outputs: int, refusal: str
) -> None:
    def pretended(command: list[str], **options: Any) -> Any:
        for number in range(outputs):
            Path(options["cwd"], "out", f"volume{number}.nii").touch()
        return subprocess.CompletedProcess(command, code)

    monkeypatch.setattr(subprocess, "run", pretended)
    files.write(files.stack(), raw)
    with pytest.raises(Refused, match=refusal):
        dicom.read(raw, only(raw))


def test_files_without_a_uid_are_told_apart(raw: Path) -> None:
    files.write(files.stack(SOPInstanceUID=None, SeriesInstanceUID=files.SERIES), raw)
    assert outcomes(raw) == {"IM0000": "read"}


def test_a_users_defaults_file_means_nothing(
    raw: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".dcm2nii.ini").write_text("isGZ=1\nisCrop=1\nisMaintain16BitPrecision=0\n")
    monkeypatch.setenv("HOME", str(tmp_path))
    files.write(files.stack(), raw)
    assert_placed(dicom.read(raw, only(raw))[0])


def test_any_damage_to_a_file_is_refused_or_harmless(raw: Path) -> None:
    """Whatever its bytes say, a file gives a volume or a refusal; nothing ends the run."""
    chance = random.Random(0)
    (path,) = files.write([files.enhanced()], raw)
    whole = path.read_bytes()
    seen = set()
    for _ in range(150):
        data = bytearray(whole)
        for _ in range(chance.choice([1, 2, 8])):
            data[chance.randrange(132, len(whole))] = chance.choice(
                [0, 127, 255, chance.randrange(256)]
            )
        path.write_bytes(data)
        try:
            seen |= set(outcomes(raw).values())
        except InputError:
            seen.add("other")
    assert {"read", "unreadable"} <= seen


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
        *(make for make, _ in FAULTY.values()),
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


def test_nothing_that_dcm2niix_prints_is_seen(
    raw: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    run = subprocess.run
    seen: list[Any] = []

    def watched(command: list[str], **options: Any) -> Any:
        seen.append((command, options["env"]))
        return run(command, **options)

    monkeypatch.setattr(subprocess, "run", watched)
    files.write(files.stack(ProtocolName="CANARY"), raw / "Doe^Jane")
    dicom.read(raw, only(raw))
    assert capfd.readouterr() == ("", "")
    ((command, environment),) = seen
    assert not any("Doe" in word for word in [*command, *environment.values()])


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
@pytest.mark.parametrize("name", [name for name, ref in ONE_VOLUME.items() if ref])
def test_real_volumes_are_those_of_the_reference(name: str) -> None:
    volume, _ = dicom.read(REAL, next(c for c in find(REAL) if c.source.startswith(name)))
    reference: Any = nib.load(REAL / Path(name).parent / "ref_dcm2niix" / str(ONE_VOLUME[name]))
    assert np.array_equal(volume.data[0], np.asarray(reference.dataobj, dtype=np.float32))
    assert volume.affine is not None
    assert np.allclose(volume.affine, reference.affine, atol=1e-4)


@needs_data
def test_two_positions_of_one_head_are_of_one_person() -> None:
    people = {c.subject for c in find(REAL / "siemens_t1_sag_positions")}
    assert len(people) == 1


ALONE = {
    "MR_truncated.dcm": "unreadable",
    "emri_small_jpeg_2k_lossless_too_short.dcm": "unreadable",
    "MR-SIEMENS-DICOM-WithOverlays.dcm": "not-3d",
    "image_dfl.dcm": "dicom-conversion",
    "CT_small.dcm": "not-mr",
    "SC_rgb_rle.dcm": "not-mr",
    "liver_1frame.dcm": "not-mr",
    "emri_small.dcm": "no-affine",
    "UN_sequence.dcm": "unreadable",
    **{f"MR_small{kind}.dcm": "not-3d" for kind in ("", "_RLE", "_bigendian", "_implicit")},
    **dict.fromkeys(
        ["LICENSE", "no_meta.dcm", "rtplan.dcm", "test-SR.dcm", "waveform_ecg.dcm"], "no candidate"
    ),
}


@pytest.mark.skipif(not NASTY.is_dir(), reason="the shared data are not here")
def test_every_odd_file_is_refused_or_passed_over(raw: Path) -> None:
    found = {}
    for path in sorted(NASTY.iterdir()):
        copy = raw / path.name
        shutil.copy(path, copy)
        try:
            ((_, found[path.name]),) = outcomes(raw).items()
        except InputError:
            found[path.name] = "no candidate"
        copy.unlink()
    assert found | ALONE == found
    assert "read" not in found.values()
