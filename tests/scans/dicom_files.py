"""Synthetic DICOM series, faulty ones among them."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pydicom import config
from pydicom.dataelem import DataElement
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence as Items
from pydicom.uid import UID, EnhancedMRImageStorage, ExplicitVRLittleEndian, MRImageStorage

ROWS, COLUMNS, SLICES = 8, 10, 6
SPACING = (1.5, 1.25)  # mm between rows, between columns
STEP = 2.0  # mm between slices
STUDY = "1.2.826.0.1.3680043.8.498.1"
SERIES = f"{STUDY}.2"

_TILT = np.radians(20)
ROW = np.array([np.cos(_TILT), np.sin(_TILT), 0])
COLUMN = np.array([0.0, 0, -1])
NORMAL = np.cross(ROW, COLUMN)
CORNER = np.array([-30.0, 12, 40])


def pixels(number: int) -> np.ndarray:
    """The pixels of a slice; no two of a series are alike."""
    first = number * ROWS * COLUMNS
    return np.arange(first, first + ROWS * COLUMNS, dtype=np.uint16).reshape(ROWS, COLUMNS)


def position(number: int) -> np.ndarray:
    """Centre of the first pixel of a slice in mm, LPS."""
    return CORNER + number * STEP * NORMAL


def image(number: int = 0, *, series: str = SERIES, **fields: Any) -> FileDataset:
    """One slice of a classic MR series; `fields` replace its own, None takes one away."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = MRImageStorage
    meta.MediaStorageSOPInstanceUID = UID(f"{series}.{number + 1}")
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made = FileDataset(b"", {}, file_meta=meta, preamble=bytes(128))
    values: dict[str, Any] = {
        "SOPClassUID": MRImageStorage,
        "SOPInstanceUID": meta.MediaStorageSOPInstanceUID,
        "StudyInstanceUID": STUDY,
        "SeriesInstanceUID": series,
        "FrameOfReferenceUID": f"{STUDY}.9",
        "SeriesDescription": "t1 mprage",
        "Modality": "MR",
        "Manufacturer": "SIEMENS",
        "ImageType": ["ORIGINAL", "PRIMARY", "M", "ND"],
        "PatientID": "MRN-4711",
        "PatientName": "Doe^Jane",
        "PatientAge": "042Y",
        "PatientSex": "F",
        "PatientBirthDate": "19800229",
        "StudyDate": "20220228",
        "SeriesNumber": 3,
        "AcquisitionNumber": 1,
        "InstanceNumber": number + 1,
        "EchoTime": 2.5,
        "RepetitionTime": 2300,
        "SliceThickness": STEP,
        "ImagePositionPatient": [f"{v:.8f}" for v in position(number)],
        "ImageOrientationPatient": [f"{v:.8f}" for v in (*ROW, *COLUMN)],
        "PixelSpacing": list(SPACING),
        "SamplesPerPixel": 1,
        "PhotometricInterpretation": "MONOCHROME2",
        "Rows": ROWS,
        "Columns": COLUMNS,
        "BitsAllocated": 16,
        "BitsStored": 16,
        "HighBit": 15,
        "PixelRepresentation": 0,
        "PixelData": pixels(number).tobytes(),
    }
    for name, value in (values | fields).items():
        if value is not None:
            setattr(made, name, value)
    return made


def stack(count: int = SLICES, **fields: Any) -> list[FileDataset]:
    return [image(number, **fields) for number in range(count)]


def enhanced(count: int = SLICES, **fields: Any) -> FileDataset:
    """The same slices as frames of one file."""
    made = image(
        SOPClassUID=EnhancedMRImageStorage,
        NumberOfFrames=count,
        ImagePositionPatient=None,
        ImageOrientationPatient=None,
        PixelSpacing=None,
        PixelData=b"".join(pixels(number).tobytes() for number in range(count)),
    )
    made.file_meta.MediaStorageSOPClassUID = EnhancedMRImageStorage
    made.SharedFunctionalGroupsSequence = Items(
        [
            _item(
                PlaneOrientationSequence=_item(ImageOrientationPatient=[*ROW, *COLUMN]),
                PixelMeasuresSequence=_item(PixelSpacing=list(SPACING), SliceThickness=STEP),
            )
        ]
    )
    made.PerFrameFunctionalGroupsSequence = Items(
        [
            _item(
                PlanePositionSequence=_item(
                    ImagePositionPatient=[f"{v:.8f}" for v in position(number)]
                ),
                FrameContentSequence=_item(
                    StackID="1",
                    InStackPositionNumber=number + 1,
                    DimensionIndexValues=[1, number + 1],
                ),
            )
            for number in range(count)
        ]
    )
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def _item(**fields: Any) -> Dataset:
    made = Dataset()
    for name, value in fields.items():
        setattr(made, name, Items([value]) if isinstance(value, Dataset) else value)
    return made


def compressed(
    number: int, syntax: str, frame: bytes = b"\xff\xd8 no such picture \xff\xd9"
) -> Any:
    """A slice that says its pixels are compressed in some way."""
    made = image(number)
    made.file_meta.TransferSyntaxUID = UID(syntax)
    made.PixelData = encapsulate([frame])
    made["PixelData"].VR = "OB"
    return made


def write(images: Sequence[Dataset], folder: Path, *, bare: bool = False) -> list[Path]:
    """Write each to a file with an export's name. bare: without preamble and meta group."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"IM{number:04d}" for number in range(len(images))]
    for made, path in zip(images, paths, strict=True):
        if bare:
            plain = Dataset(made)
            plain.save_as(path, implicit_vr=True, little_endian=True)
        else:
            with warnings.catch_warnings(action="ignore"):  # of values planted
                made.save_as(path, enforce_file_format=True)
    return paths


def plant(made: Dataset, tag: str, kind: str, value: Any) -> None:
    """Set a field, whether or not its kind allows the value."""
    made[tag] = DataElement(tag, kind, value, validation_mode=config.IGNORE)
