"""What one file says, and what several say together; as `dicom.read` refuses it."""

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence as Items
from pydicom.uid import UID

from tests.scans import dicom_files as files
from tests.scans.dicom_reading import only, outcomes
from vqmri.errors import InputError

pytestmark = pytest.mark.usefixtures("temporary")


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


def test_files_without_a_uid_are_told_apart(raw: Path) -> None:
    files.write(files.stack(SOPInstanceUID=None, SeriesInstanceUID=files.SERIES), raw)
    assert outcomes(raw) == {"IM0000": "read"}


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
