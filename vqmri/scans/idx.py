"""Find, read and write images in the idx format of MNIST, gzipped or plain.

An idx file holds one array: two zero bytes, the type (8: unsigned bytes), the number of axes, the
length of each axis as a big-endian int32, and the values, last axis fastest. See
http://yann.lecun.com/exdb/mnist.
"""

import gzip
import hashlib
import io
import struct
import zlib
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from vqmri.errors import InputError
from vqmri.outputs import replace_file
from vqmri.scans.raster import COLOURS, to_volume
from vqmri.scans.split import HELD_OUT, TRAIN
from vqmri.scans.volume import Candidate, Volume

Values = UInt8[np.ndarray, "..."]

_UNSIGNED_BYTES = 8
_GZIP = b"\x1f\x8b"
_MAX_BYTES = 2**32
_SIDES = {"train": TRAIN, "test": HELD_OUT}


def find(raw: Path, *, files: dict[str, str], covariate: str) -> list[Candidate]:
    """All images of the files `train_images` and `test_images`, the test ones held out.

    files: path relative to `raw` of each of train_images, train_labels, test_images, test_labels
    covariate: name under which the label of an image stands, as text: labels are categories
    Each image is a subject of its own. Raises InputError when a file is absent, damaged or does not
    belong to the others.
    """
    num_channels(raw, files=files)
    found = []
    for part, side in _SIDES.items():
        images = _images(raw / files[f"{part}_images"])
        labels = load(raw / files[f"{part}_labels"])
        if labels.shape != images.shape[:1]:
            raise InputError(
                f"{raw / files[f'{part}_labels']} holds an array of shape {labels.shape}; one label"
                f" for each of the {len(images)} images of {files[f'{part}_images']} is needed. Is "
                f"it the label file of these images? Correct ingest.source.{part}_labels in "
                "params.yaml."
            )
        for number, label in enumerate(labels.tolist()):
            name = f"{part}-images/{number:05d}"
            found.append(Candidate(name, name, {covariate: str(label)}, split=side))
    return found


def num_channels(raw: Path, *, files: dict[str, str]) -> int:
    """1 for grey images, 3 for RGB; InputError when those of training and test differ."""
    numbers = {
        name: _images(raw / files[name]).shape[3] for name in ("train_images", "test_images")
    }
    if len(set(numbers.values())) > 1:
        raise InputError(
            f"{raw}: the images do not all have as many channels: {numbers}. Name files that "
            "belong together below ingest.source in params.yaml."
        )
    return numbers["train_images"]


def read(raw: Path, candidate: Candidate, *, files: dict[str, str]) -> tuple[Volume, str]:
    """One image in [0, 1] and the sha256 of its bytes."""
    part, number = candidate.source.split("-images/")
    pixels = _images(raw / files[f"{part}_images"])[int(number)]
    return to_volume(pixels), hashlib.sha256(pixels.tobytes()).hexdigest()


def load(path: Path) -> Values:
    """The array in a file; InputError says what is wrong with it. It is kept for the next call."""
    try:
        about = path.stat()
        return _load(path, about.st_mtime_ns, about.st_size)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(
            f"{path} cannot be read ({type(error).__name__}: {error}). Fetch it again, or correct "
            "its name below ingest.source in params.yaml."
        ) from error


def write(path: Path, values: Values) -> None:
    """Write images (n, rows, columns[, channels]) or labels (n,), gzipped, whole or not at all.

    Equal values give equal bytes: no time stands in the gzip header. ValueError for a lone number.
    """
    if not 1 <= values.ndim <= 255:
        raise ValueError(f"an idx file has at least one axis, found shape {values.shape}")
    header = struct.pack(f">HBB{values.ndim}I", 0, _UNSIGNED_BYTES, values.ndim, *values.shape)
    replace_file(path, gzip.compress(header + values.tobytes(), compresslevel=6, mtime=0))


def _images(path: Path) -> UInt8[np.ndarray, "image row column channel"]:
    """The images of a file, grey ones with one channel."""
    values = load(path)
    images = values[..., None] if values.ndim == 3 else values
    if images.ndim != 4 or images.shape[3] not in COLOURS or 0 in images.shape:
        raise InputError(
            f"{path} holds an array of shape {values.shape}; images are (number, rows, columns) or "
            "(number, rows, columns, 3). Correct the name below ingest.source in params.yaml."
        )
    return images


@lru_cache(maxsize=4)
def _load(path: Path, _time: int, _size: int) -> Values:
    """The array; time and size of the file are there so that a changed file is read again."""
    with path.open("rb") as file:
        packed = file.read(2) == _GZIP
        file.seek(0)
        return _parse(gzip.GzipFile(fileobj=file) if packed else file, path)


def _parse(stream: Any, path: Path) -> Values:
    """Header and values, read to the end of the stream, so that a gzip checksum counts."""
    magic = stream.read(4)
    if len(magic) < 4 or magic[:3] != bytes((0, 0, _UNSIGNED_BYTES)) or magic[3] == 0:
        raise InputError(
            f"{path} is no idx file of bytes: it begins with {magic.hex(' ') or 'nothing'}, and "
            "not with 00 00 08 and the number of axes. Correct its name below ingest.source in "
            "params.yaml."
        )
    lengths = stream.read(4 * magic[3])
    if len(lengths) < 4 * magic[3]:
        raise InputError(f"{path} ends within its header. Fetch it again.")
    shape = struct.unpack(f">{magic[3]}I", lengths)
    size = int(np.prod(shape, dtype=object))
    if size > _MAX_BYTES:
        raise InputError(
            f"{path}: its header says shape {shape}, more than {_MAX_BYTES} bytes. Fetch it again, "
            "or split it."
        )
    values = io.BytesIO()
    while len(block := stream.read(min(size + 1 - values.tell(), 2**24))):
        values.write(block)
    if values.tell() != size:
        found = "more" if values.tell() > size else str(values.tell())
        raise InputError(
            f"{path}: its header says shape {shape}, {size} bytes, and it holds {found}. Fetch it "
            "again."
        )
    return np.frombuffer(values.getvalue(), dtype=np.uint8).reshape(shape)
