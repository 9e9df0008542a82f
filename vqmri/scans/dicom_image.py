"""What one DICOM image file says of itself, checked, and where the slices of several lie.

No reason of a refusal repeats a text of a header or of pydicom: any of them may hold a name.
Tags and rules: https://dicom.nema.org/medical/dicom/current/output/html/part03.html
"""

import io
import logging
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from jaxtyping import Float
from pydicom.errors import BytesLengthException, InvalidDicomError

from vqmri.scans.check import MAX_VOXELS, Refused, raise_machines_fault

DEFLATED = b"1.2.840.10008.1.2.1.99"  # transfer syntax of a file that is deflated as a whole
START = 2**12  # bytes among which the transfer syntax stands

DAMAGE = (
    OSError, EOFError, ValueError, KeyError, IndexError, TypeError, AttributeError, OverflowError,
    RecursionError, NotImplementedError, LookupError, MemoryError, struct.error, zlib.error,
    BytesLengthException, InvalidDicomError,
)  # fmt: skip
"""What pydicom raises over a damaged file."""

_PREAMBLE = 128
_FIRST_TAGS = (b"\x02\x00", b"\x08\x00", b"\x00\x02", b"\x00\x08")
"""How a file without preamble begins: group 0002 or 0008, in either byte order."""

_PIXEL_DATA = 0x7FE0, 0x0010
_ITEM, _END_OF_ITEMS = (0xFFFE, 0xE000), (0xFFFE, 0xE0DD)
_UNDEFINED = 0xFFFFFFFF

_READ_TAGS = [
    "SOPInstanceUID", "Modality", "ImageType", "PhotometricInterpretation", "SamplesPerPixel",
    "NumberOfFrames", "Rows", "Columns", "BitsAllocated", "ImagePositionPatient",
    "ImageOrientationPatient", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence",
]  # fmt: skip

_SAME_DIRECTION = 1e-3
_SAME_PLACE = 1e-3  # mm
_EVEN = 0.02  # of the distance between slices

_ONE_AT_A_TIME = threading.Lock()

Positions = Float[np.ndarray, "slice 3"]


@dataclass(frozen=True)
class Image:
    """What is needed of a file to tell whether its series is one volume.

    shape: rows and columns
    orientation: direction of a row and of a column, of each slice
    position: centre of the first voxel of each slice in mm, RAS+
    """

    uid: str
    shape: tuple[int, int]
    orientation: Float[np.ndarray, "slice 6"]
    position: Positions


def is_marked(start: bytes) -> bool:
    """Whether a file that starts so has the preamble of DICOM and its mark."""
    return start[_PREAMBLE : _PREAMBLE + 4] == b"DICM"


def may_be_dicom(start: bytes) -> bool:
    """Whether a file that starts so is worth parsing: it has the mark, or begins as a bare one."""
    return is_marked(start) or start[:2] in _FIRST_TAGS


def parse(file: io.BufferedIOBase, tags: list[str]) -> Any | None:
    """Some fields of a header, the file left where the pixels begin; None when it is damaged."""
    file.seek(0)
    with quiet():
        try:
            return pydicom.dcmread(file, stop_before_pixels=True, force=True, specific_tags=tags)
        except DAMAGE as error:
            raise_machines_fault(error, Path(getattr(file, "name", "")))
            return None


@contextmanager
def quiet() -> Iterator[None]:
    """No warning and no log of pydicom's: they repeat values. Both belong to all threads."""
    logger = logging.getLogger("pydicom")
    with _ONE_AT_A_TIME, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before, logger.disabled = logger.disabled, True
        try:
            yield
        finally:
            logger.disabled = before


def text(fields: Any, tag: str) -> str:
    """The value of a field without its padding, "" where there is none; it may hold a name."""
    value = fields.get(tag)
    return "" if value is None else str(value).strip(" \0")


def read_image(data: bytes) -> Image:
    """What a file says of its slices; raises Refused."""
    if DEFLATED in data[:START]:
        raise Refused("dicom-conversion", "the file is deflated as a whole; inflate it first")
    file = io.BytesIO(data)
    fields = parse(file, _READ_TAGS) if may_be_dicom(data) else None
    refusal: Refused | None = None
    try:
        if fields is not None:
            with quiet():
                _check_kind(fields)
                _check_pixels(data, file.tell(), fields)
                return _slices(fields)
    except Refused as error:
        refusal = error
    except DAMAGE:
        pass
    # Raised out here, it carries no exception of pydicom's along, whose text repeats values.
    raise refusal or Refused("unreadable", "the header of a file is damaged or cut short")


def _check_kind(fields: Any) -> None:
    """Refuse what is no grey image of MR; the texts of the header stay where they are."""
    if not (fields.get("Rows") and fields.get("Columns")):
        raise Refused("unreadable", "the header is cut short, or holds no image")
    if text(fields, "Modality") != "MR":
        raise Refused("not-mr", "Modality is not MR")
    if text(fields, "PhotometricInterpretation") != "MONOCHROME2" or fields.SamplesPerPixel != 1:
        raise Refused("not-real", "the pixels are no grey values with black as zero")
    kinds = {str(value).strip() for value in fields.get("ImageType") or ()}
    if "MOSAIC" in kinds:
        raise Refused("not-one-volume", "the slices are tiles of a mosaic, as in a time series")
    if "LOCALIZER" in kinds:
        raise Refused("not-one-volume", "the series is a localizer")
    voxels = int(fields.Rows) * int(fields.Columns) * _num_frames(fields)
    if voxels > MAX_VOXELS:
        raise Refused("too-large", f"a file promises {voxels} voxels")
    if voxels <= 0:
        raise Refused("unreadable", "a file promises no voxels")


def _num_frames(fields: Any) -> int:
    return int(fields.get("NumberOfFrames") or 1)


def _check_pixels(data: bytes, start: int, fields: Any) -> None:
    """Refuse a file that ends before its pixels do. `start`: where their element begins."""
    implicit, little = fields.original_encoding
    order = "<" if little else ">"
    if struct.unpack_from(f"{order}HH", data, start) != _PIXEL_DATA:
        raise Refused("unreadable", "a file has a header and no pixels")
    start += 8 if implicit else 12
    (length,) = struct.unpack_from(f"{order}I", data, start - 4)
    if length == _UNDEFINED:
        frames = _num_fragments(data, start)
        whole = frames is not None and frames >= _num_frames(fields)
    else:
        voxels = int(fields.Rows) * int(fields.Columns) * _num_frames(fields)
        whole = min(length, len(data) - start) * 8 >= voxels * int(fields.BitsAllocated)
    if not whole:
        raise Refused("unreadable", "a file ends before its pixels do")


def _num_fragments(data: bytes, start: int) -> int | None:
    """Number of pieces of compressed pixels after the table of offsets; None if they do not end."""
    number = -1
    while start + 8 <= len(data):
        *tag, length = struct.unpack_from("<HHI", data, start)
        if tuple(tag) == _END_OF_ITEMS:
            return number
        if tuple(tag) != _ITEM:
            return None
        start += 8 + length
        number += 1
    return None


def _slices(fields: Any) -> Image:
    """One slice of a classic file, one for each frame of an enhanced one."""
    frames = fields.get("PerFrameFunctionalGroupsSequence") or [fields]
    shared = next(iter(fields.get("SharedFunctionalGroupsSequence") or [fields]))
    if len(frames) != _num_frames(fields):
        raise Refused("no-affine", "the header does not say where each frame is")
    numbers = [_plane(frame, shared) for frame in frames]
    if None in numbers:
        raise Refused("no-affine", "a slice has no position or no orientation")
    planes = np.array(numbers, dtype=np.float64).reshape(len(frames), 9)
    if not np.isfinite(planes).all():
        raise Refused("bad-affine", "a position or an orientation is not finite")
    return Image(
        uid=text(fields, "SOPInstanceUID"),
        shape=(int(fields.Rows), int(fields.Columns)),
        orientation=planes[:, :6],
        position=planes[:, 6:] * [-1, -1, 1],  # DICOM's world is LPS
    )


def _plane(frame: Any, shared: Any) -> list[float] | None:
    """Orientation and position of a frame, from itself or from what all frames share."""
    numbers: list[float] = []
    for group, tag, size in (
        ("PlaneOrientationSequence", "ImageOrientationPatient", 6),
        ("PlanePositionSequence", "ImagePositionPatient", 3),
    ):
        places = [
            place
            for each in (frame, shared)
            for place in (each, *(each.get(group) or ()))
            if place.get(tag) is not None
        ]
        if not places or len(places[0].get(tag)) != size:
            return None
        numbers += [float(value) for value in places[0].get(tag)]
    return numbers


def slice_positions(images: Sequence[Image]) -> Positions:
    """Positions of the slices in their order in space; Refused when they are not one even stack."""
    orientation = np.concatenate([image.orientation for image in images])
    if len({image.shape for image in images}) > 1:
        raise Refused("not-one-volume", "the slices are of several sizes")
    if np.abs(orientation - orientation[0]).max() > _SAME_DIRECTION:
        raise Refused("not-one-volume", "the slices lie in several directions")
    row, column = orientation[0].reshape(2, 3)
    if not np.allclose([row @ row, column @ column, row @ column], [1, 1, 0], atol=1e-2):
        raise Refused("bad-affine", "the rows and columns are no right-angled directions")
    normal = np.cross(row, column) * [-1, -1, 1]
    position = np.concatenate([image.position for image in images])
    position = position[np.argsort(position @ normal, kind="stable")]
    if len(position) < 2:
        raise Refused("not-3d", "the series has one slice")
    gaps = np.diff(position @ normal)
    if gaps.min() < _SAME_PLACE:
        same = int((gaps < _SAME_PLACE).sum())
        raise Refused("not-one-volume", f"{same} of {len(position)} slices repeat a position")
    steps = np.diff(position, axis=0)
    middle = np.median(steps, axis=0)
    if np.abs(steps - middle).max() > _EVEN * np.linalg.norm(middle):
        raise Refused(
            "slices-missing", f"the slices are {gaps.min():.3g} to {gaps.max():.3g} mm apart"
        )
    return position
