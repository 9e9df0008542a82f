"""Find and read pictures: class folders of PNG or JPEG, and CIFAR-10's binary files.

A record of a CIFAR-10 file is one byte of label and 3 × 32 × 32 bytes of pixels: red, green, blue,
each by rows. See https://www.cs.toronto.edu/~kriz/cifar.html.
"""

import hashlib
import io
import struct
import zlib
from functools import lru_cache
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from vqmri.errors import InputError
from vqmri.scans import kinds
from vqmri.scans.check import Refused, raise_machines_fault
from vqmri.scans.raster import Pixels, recolour, to_volume
from vqmri.scans.split import HELD_OUT, TRAIN
from vqmri.scans.volume import Candidate, Volume

SUFFIXES = (".png", ".jpg", ".jpeg")
BINARY = ".bin"
CLASS_NAMES = "batches.meta.txt"
"""Beside a binary file: the name of each class, one to a line."""

_SIDE = 32
_RECORD_BYTES = 1 + 3 * _SIDE**2
_MAX_PIXELS = 2**26
_DAMAGE = (
    OSError, EOFError, SyntaxError, ValueError, KeyError, IndexError, TypeError, OverflowError,
    struct.error, zlib.error,
)  # fmt: skip
"""What Pillow raises over a damaged file."""

_BOMBS = (Image.DecompressionBombError, Image.DecompressionBombWarning)


def find(raw: Path, *, images: str, test_images: str | None, covariate: str) -> list[Candidate]:
    """Pictures below `raw` that match a glob, sorted by path; those of `test_images` are held out.

    covariate: name under which the class stands: the folder of a PNG or JPEG, the label of a record
        of a binary file
    Each picture is a subject of its own. Raises InputError when a glob matches nothing, both
    match one file or one looks into a folder that may not be listed, or when a binary file is
    damaged.
    """
    train = _matches(raw, images)
    test = _matches(raw, test_images) if test_images else []
    if twice := sorted(set(train) & set(test)):
        raise InputError(
            f"{twice[0]} is matched by ingest.source.images = {images!r} and by test_images = "
            f"{test_images!r}; no picture may be on both sides. Make one of them narrower."
        )
    side = TRAIN if test_images else ""
    found = [each for path in train for each in _candidates(raw, path, covariate, side)]
    found += [each for path in test for each in _candidates(raw, path, covariate, HELD_OUT)]
    return found


def files(raw: Path, candidates: list[Candidate]) -> list[str]:
    """Paths relative to `raw` of everything that the candidates are read from."""
    names = dict.fromkeys(
        source if _is_picture(source) else source.rpartition("/")[0]
        for source in (candidate.source for candidate in candidates)
    )
    tables = {Path(name).with_name(CLASS_NAMES) for name in names if name.endswith(BINARY)}
    return [*names, *(t.as_posix() for t in sorted(tables) if (raw / t).is_file())]


def read(raw: Path, candidate: Candidate, *, channels: int) -> tuple[Volume, str]:
    """One picture in [0, 1], grey (1 channel) or RGB (3), and the sha256 of its file or record.

    Raises Refused when a PNG or JPEG is damaged or too large, OSError when the machine cannot read.
    """
    path = raw / candidate.source
    if _is_picture(path.name):
        try:
            data = path.read_bytes()
        except OSError as error:
            raise_machines_fault(error, path)
            raise Refused("unreadable", f"{type(error).__name__}: {error.strerror}") from error
        return to_volume(_decode(data, channels)), hashlib.sha256(data).hexdigest()
    record = _records(path.parent)[int(path.name)]
    pixels = np.moveaxis(record[1:].reshape(3, _SIDE, _SIDE), 0, -1)
    if channels != 3:
        pixels = recolour(Image.fromarray(np.ascontiguousarray(pixels)), channels)
    return to_volume(pixels), hashlib.sha256(record.tobytes()).hexdigest()


def _is_picture(name: str) -> bool:
    return name.lower().endswith(SUFFIXES)


def _matches(raw: Path, glob: str) -> list[Path]:
    found = kinds.matching(raw, glob)
    paths = sorted(p for p in found if _is_picture(p.name) or p.suffix == BINARY)
    if not paths:
        raise InputError(
            f"nothing that matches {glob!r} in {raw} is a picture ({', '.join(SUFFIXES)}) or a "
            f"binary file of CIFAR-10 ({BINARY}). Correct ingest.raw, or the glob below "
            "ingest.source."
        )
    return paths


def _candidates(raw: Path, path: Path, covariate: str, side: str) -> list[Candidate]:
    """One for a picture, one for every record of a binary file."""
    name = path.relative_to(raw).as_posix()
    if path.suffix != BINARY:
        if path.parent == raw:
            raise InputError(
                f"{path} lies in no folder that could name its class. Move it into one, or make "
                "ingest.source.images narrower."
            )
        return [Candidate(name, name, {covariate: path.parent.name}, split=side)]
    labels = _records(path)[:, 0].tolist()
    names = _class_names(path)
    if names and max(labels) >= len(names):
        raise InputError(
            f"{path} has a record of class {max(labels)}, and {CLASS_NAMES} beside it names "
            f"{len(names)} classes. Is this a binary file of CIFAR-10? Add the missing names, or "
            "remove that file."
        )
    classes = [names[label] if names else str(label) for label in labels]
    sources = [f"{name}/{number:05d}" for number in range(len(labels))]
    return [
        Candidate(source, source, {covariate: label}, split=side)
        for source, label in zip(sources, classes, strict=True)
    ]


def _class_names(path: Path) -> list[str]:
    table = path.with_name(CLASS_NAMES)
    if not table.is_file():
        return []
    lines = table.read_text(encoding="utf-8").splitlines()
    return [line.strip() for line in lines if line.strip()]


def _records(path: Path) -> UInt8[np.ndarray, "record byte"]:
    """All records of a binary file; they are kept for the next call."""
    try:
        about = path.stat()
        return _load(path, about.st_mtime_ns, about.st_size)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error}). Fetch it again.") from error


@lru_cache(maxsize=4)
def _load(path: Path, _time: int, _size: int) -> UInt8[np.ndarray, "record byte"]:
    """The records; time and size of the file are there so that a changed file is read again."""
    data = path.read_bytes()
    if not data or len(data) % _RECORD_BYTES:
        raise InputError(
            f"{path} has {len(data)} bytes, which is no multiple of {_RECORD_BYTES}: it is cut "
            "short or no binary file of CIFAR-10. Fetch it again."
        )
    return np.frombuffer(data, dtype=np.uint8).reshape(-1, _RECORD_BYTES)


def _decode(data: bytes, channels: int) -> Pixels:
    try:
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as image:
            if image.width * image.height > _MAX_PIXELS:
                raise Refused("too-large", f"{image.width} × {image.height} pixels")
            if image.mode.startswith(("I", "F")):
                raise Refused("not-8-bit", f"pixels are of Pillow's mode {image.mode}")
            image.verify()  # the checksums of PNG, which loading passes over; it ends the image
        with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as image:
            return recolour(image, channels)
    except _BOMBS as error:
        raise Refused("too-large", str(error)) from error
    except _DAMAGE as error:
        raise Refused("unreadable", f"{type(error).__name__}: {error}") from error
