"""Find DICOM series by their headers and read each as one volume, through dcm2niix.

Of a header only the age and the sex leave this module, and of the PatientID a label that does not
tell it. No reason of a refusal repeats a text of a header, of pydicom or of dcm2niix: any of them
may hold a name. Tags and rules: https://dicom.nema.org/medical/dicom/current/output/html/part03.html
"""

import fnmatch
import hashlib
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from pydicom.uid import UID

from vqmri.errors import InputError
from vqmri.scans import dicom_conversion, kinds, nifti
from vqmri.scans.check import MAX_VOXELS, Refused, raise_machines_fault
from vqmri.scans.dicom_image import (
    DAMAGE,
    DEFLATED,
    START,
    Image,
    is_marked,
    may_be_dicom,
    parse,
    quiet,
    read_image,
    slice_positions,
    text,
)
from vqmri.scans.pseudonym import label
from vqmri.scans.volume import Candidate, Volume

COVARIATES = ("age", "sex")
OLDEST = 90.0
"""Ages in years above it stand as it: the few people who are older could be told by their age."""

_UNKNOWN = "unknown"  # subject of a file that no reader will accept
_MAX_AGE = 130.0
_PER_YEAR = {"Y": 1.0, "M": 12.0, "W": 365.25 / 7, "D": 365.25}
_MAX_BYTES = MAX_VOXELS * 8

_FIND_TAGS = [
    "SOPClassUID", "StudyInstanceUID", "SeriesInstanceUID", "SeriesDescription", "PatientID",
    "PatientAge", "PatientBirthDate", "PatientSex", "StudyDate", "Rows", "Columns",
]  # fmt: skip


def find(
    raw: Path, *, description: str | None, subject_key: str | None, covariates: Sequence[str]
) -> list[Candidate]:
    """One candidate for each series of images below `raw`, whatever its files are called.

    description: glob over SeriesDescription, case aside ("*t1*"); None takes every series
    subject_key: secret of the label of a person, which is then the same in every data set made with
        it; without one people are numbered in the order of their files, and a further scan may
        change the numbers, so also who is held out
    covariates: which of `COVARIATES` to keep. The age is PatientAge, else whole years from
        PatientBirthDate to StudyDate; over 90 it is 90; no years at all, which scanners write when
        they were told nothing, are no age
    Files that are no DICOM, DICOMDIR and objects without an image are passed over; links are not
    followed. A DICOM image whose header is damaged is a candidate, for `read` to refuse.
    Without a PatientID each study is a person of its own.
    Raises InputError when nothing is found, the key is empty or a covariate is not known.
    """
    if unknown := set(covariates) - set(COVARIATES):
        raise InputError(
            f"ingest.source.covariates: DICOM has no covariate {min(unknown)!r}. Choose from "
            f"{', '.join(COVARIATES)}."
        )
    if subject_key == "":
        raise InputError(
            "ingest.subject_key is empty. Give a long random text, or null for numbers."
        )
    damaged, series = _group(raw, description)
    found: list[Candidate] = [Candidate(name, _UNKNOWN, {}, files=(name,)) for name in damaged]
    numbers: dict[str, str] = {}
    for headers in series:
        person = headers[0].person
        number = numbers.setdefault(person, f"subject{len(numbers) + 1:04d}")
        values = {
            "age": next((h.age for h in headers if h.age is not None), None),
            "sex": next((h.sex for h in headers if h.sex is not None), None),
        }
        found.append(
            Candidate(
                source=headers[0].name,
                subject=number if subject_key is None else label(person, subject_key),
                covariates={name: values[name] for name in covariates},
                files=tuple(h.name for h in headers),
            )
        )
    if not found:
        asked = "" if description is None else f" whose SeriesDescription matches {description!r}"
        raise InputError(
            f"no DICOM series of images{asked} in {raw} (links are not followed). Set ingest.raw "
            "to the folder that holds them, or ingest.source.description to null for all series."
        )
    return sorted(found, key=lambda candidate: candidate.source)


def read(
    raw: Path, candidate: Candidate, *, scratch: Path | None = None, timeout_s: float = 600.0
) -> tuple[Volume, str]:
    """The volume of a series and the sha256 over its files in their order.

    Raises Refused, or OSError when a file is gone or the machine cannot read it.

    The headers are checked first: dcm2niix guesses where positions are missing, joins what is left
    when a slice is, and decodes half a compressed file without a word.
    scratch: where copies of the files lie for a while; timeout_s: of dcm2niix
    """
    assert candidate.files
    with TemporaryDirectory(prefix="vqmri-dicom-", dir=scratch) as name:
        folder = Path(name)
        images, sha256 = _copy(raw, candidate.files, folder / "in")
        positions = slice_positions(images)
        volume, _ = nifti.read(dicom_conversion.convert(folder, timeout_s))
    dicom_conversion.check_place(volume, positions, images[0].shape)
    return volume, sha256


@dataclass(frozen=True)
class _Header:
    """What finding needs of a file.

    series, person: whatever tells one from another; they never leave the module
    age: years
    """

    name: str
    series: tuple[str, ...]
    description: str
    person: str
    age: float | None
    sex: str | None


def _group(raw: Path, description: str | None) -> tuple[list[str], list[list[_Header]]]:
    """Names of damaged files, and the headers of each series that is asked for."""
    damaged: list[str] = []
    series: dict[tuple[str, ...], list[_Header]] = {}
    # a link would only show its file twice
    paths = (path for path in kinds.files(raw) if path.is_file() and not path.is_symlink())
    for name in sorted(path.relative_to(raw).as_posix() for path in paths):
        header = _header(raw, name)
        if isinstance(header, _Header):
            if description is None or fnmatch.fnmatchcase(header.description, description.lower()):
                series.setdefault(header.series, []).append(header)
        elif header == "damaged":
            damaged.append(name)
    return damaged, list(series.values())


def _header(raw: Path, name: str) -> _Header | str:
    """The header of an image, or "other" for what is none, or "damaged"."""
    try:
        with (raw / name).open("rb") as file:
            start = file.read(START)
            if not may_be_dicom(start):
                return "other"
            marked = is_marked(start)
            if DEFLATED in start:
                return "damaged"
            fields = parse(file, _FIND_TAGS)
            if fields is None:
                return "damaged" if marked else "other"
            with quiet():
                return _fields_of(fields, name, marked)
    except DAMAGE as error:
        raise_machines_fault(error, raw / name)
        return "damaged"


def _fields_of(fields: Any, name: str, marked: bool) -> _Header | str:
    kind = fields.get("SOPClassUID") or fields.file_meta.get("MediaStorageSOPClassUID")
    if not kind:  # absent or empty
        return "damaged" if marked else "other"
    if not (fields.get("Rows") and fields.get("Columns")):  # cut short, or no image at all
        return "damaged" if "Image Storage" in UID(kind).name else "other"
    study, uid = text(fields, "StudyInstanceUID"), text(fields, "SeriesInstanceUID")
    person = text(fields, "PatientID")
    return _Header(
        name=name,
        series=(study, uid, person) if uid else ("", "", name),
        description=text(fields, "SeriesDescription").lower(),
        person=f"id {person}" if person else f"study {study or name}",
        age=_age(fields),
        sex={"F": "F", "M": "M"}.get(text(fields, "PatientSex").upper()),
    )


def _age(fields: Any) -> float | None:
    """Years, or None where they are missing or cannot be."""
    if found := re.fullmatch(r"(\d{3})([DWMY])", text(fields, "PatientAge")):
        age = round(int(found.group(1)) / _PER_YEAR[found.group(2)], 2)
        missing = found.group(0) == "000Y"
        return None if missing or age > _MAX_AGE else min(age, OLDEST)
    try:
        born, seen = (_date(text(fields, tag)) for tag in ("PatientBirthDate", "StudyDate"))
    except ValueError:
        return None
    years = seen.year - born.year - ((seen.month, seen.day) < (born.month, born.day))
    return min(float(years), OLDEST) if 0 < years <= _MAX_AGE else None


def _date(digits: str) -> date:
    return date(int(digits[:4]), int(digits[4:6]), int(digits[6:8]))


def _copy(raw: Path, names: Sequence[str], folder: Path) -> tuple[list[Image], str]:
    """Check every file of a series and copy it under a number; the same image twice is copied once.

    What is hashed, checked and converted are the same bytes, whatever happens to the files.
    """
    folder.mkdir()
    whole = hashlib.sha256()
    images: dict[str, Image] = {}
    contents: dict[str, bytes] = {}
    for number, name in enumerate(names):
        data = _bytes(raw, name)
        whole.update(data)
        image = read_image(data)
        content = hashlib.sha256(data).digest()
        uid = image.uid or content.hex()
        if contents.setdefault(uid, content) != content:
            raise Refused("not-one-volume", "two different files have the same SOPInstanceUID")
        if uid in images:
            continue
        images[uid] = image
        (folder / f"{number:06d}.dcm").write_bytes(data)
        if sum(each.shape[0] * each.shape[1] * len(each.position) for each in images.values()) > (
            MAX_VOXELS
        ):
            raise Refused("too-large", f"the series has more than {MAX_VOXELS} voxels")
    return list(images.values()), whole.hexdigest()


def _bytes(raw: Path, name: str) -> bytes:
    path = raw / name
    data = None
    try:
        target = Path(os.path.realpath(path))  # unlike resolve(), silent about a loop
        if not target.is_relative_to(os.path.realpath(raw)):
            raise Refused("outside", "a file of the series is a link out of the raw folder")
        if path.stat().st_size <= _MAX_BYTES:
            data = path.read_bytes()
    except OSError as error:
        raise_machines_fault(error, path)
        raise Refused("unreadable", f"a file of the series: {type(error).__name__}") from None
    if data is None:
        raise Refused("too-large", "a file of the series is larger than any scan")
    return data
