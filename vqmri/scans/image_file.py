"""Image files with an affine: bytes to voxels, bounded. nibabel reads the headers and scales.

| names                  | what nibabel calls it      | files                            |
|------------------------|----------------------------|----------------------------------|
| `.nii`                 | NIfTI-1, NIfTI-2           | one                              |
| `.hdr` and `.img`      | the same as a pair         | two; the header's name stands    |
| `.mgh`, `.mgz`         | MGH, of FreeSurfer         | one                              |

All may be gzipped: `.gz` is appended, and `.mgz` is `.mgh.gz`. Capitals are the same.
"""

import hashlib
import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import nibabel as nib
import numpy as np
from isal import igzip, isal_zlib
from nibabel.arrayproxy import ArrayProxy
from nibabel.filebasedimages import ImageFileError
from nibabel.freesurfer import mghformat
from nibabel.spatialimages import HeaderDataError

from vqmri.scans.check import MAX_VOXELS, Refused, check_header, raise_machines_fault

_SUFFIX = re.compile(r"\.(?:(?:nii|hdr|img|mgh)(?:\.gz)?|mgz)$", re.IGNORECASE)
_HEADER_BYTES = 540  # of NIfTI-2; NIfTI-1 has 348, MGH 90
_SLACK_BYTES = 2**20  # of what may follow: padding, MGH's tags, extensions in a `.hdr`
_MAX_BYTES = MAX_VOXELS * 8
_MOST_BYTES_A_VOXEL = 16  # of a long double
_UNSUSPECTED_BYTES = 2**26
_MAX_COMPRESSION = 500  # of larger scans; deflate ends at 1032, with zeros, and masks come near
_ISAL_ERROR: Any = isal_zlib.IsalError  # which its stub calls an instance
_DAMAGE = (
    EOFError, ValueError, KeyError, OverflowError, _ISAL_ERROR,
    HeaderDataError, ImageFileError,
)  # fmt: skip
"""What nibabel and gzip raise over a damaged file."""


@dataclass(frozen=True)
class Header:
    """What the header of an image says, as far as it is needed.

    fields: nibabel's header object
    start: byte at which the voxels begin in their file
    affine: None where the file does not say; nibabel would guess
    qform: of NIfTI with both codes set, whose affine is the sform, else None; NaN where the header
        has a qform that cannot be computed
    """

    fields: Any
    start: int
    affine: np.ndarray | None
    qform: np.ndarray | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(int(n) for n in self.fields.get_data_shape())

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(self.fields.get_data_dtype())

    @property
    def stop(self) -> int:
        """Byte at which the voxels end; Refused when that is beyond any scan's."""
        voxels = int(np.prod([max(n, 0) for n in self.shape], dtype=object))
        if voxels * self.dtype.itemsize > _MAX_BYTES:
            raise Refused("too-large", f"the header says shape {self.shape}")
        return max(self.start, 0) + voxels * self.dtype.itemsize


def is_image(path: Path) -> bool:
    """Whether the name is one that is looked for; the file is not opened."""
    return _SUFFIX.search(path.name) is not None


def stem(path: Path) -> str:
    """The name without its suffix or suffixes."""
    return _SUFFIX.sub("", path.name)


def of_file(path: Path) -> Path:
    """The path under which an image is known: that of the header for the voxels of a pair."""
    return (_other_half(path, "hdr") or path) if _is(path, "img") else path


def parts(path: Path) -> list[Path]:
    """The files that an image consists of, its header first."""
    other = _other_half(path, "img") if _is(path, "hdr") else None
    return [path, other] if other else [path]


def read(
    path: Path, dtype: type[np.floating], *, least: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray | None, str]:
    """Voxels (x, y, z), affine, qform and sha256 of an image whose header passes the checks.

    least: bytes that a gzipped file may have unpacked, however small it is; see `least_of`
    The qform is that of `Header`, for which nothing is refused.
    What is gzipped is read to its end, so that its checksum counts; nibabel alone would not notice.
    The sha256 of a pair is that of the header's file and the voxels' file, one after the other.
    Raises Refused, or OSError when the file is gone or the machine cannot read it.
    """
    digest = hashlib.sha256()
    # what is no number, or beyond float32, is refused by the checks and needs no warning
    with _damage_refused(path), np.errstate(all="ignore"):
        header, stream = (_pair if _is_half(path) else _single)(path, digest, least)
        check_header(header.shape, header.dtype, header.affine)
        voxels = ArrayProxy(io.BytesIO(stream), header.fields, mmap=False)
        data = np.asarray(voxels, dtype=dtype).reshape(header.shape[:3])
    assert header.affine is not None
    return data, header.affine, header.qform, digest.hexdigest()


def least_of(voxels: int) -> int:
    """Bytes that an image on the grid of a scan of so many voxels may honestly have."""
    return _MOST_BYTES_A_VOXEL * voxels + _SLACK_BYTES


def read_header(path: Path) -> Header:
    """The header alone, which nothing has checked; raises Refused when there is none."""
    with (
        _damage_refused(path),
        np.errstate(all="ignore"),
        _opened(path, hashlib.sha256(), 0) as (file, _),
    ):
        return _parser(path)(file.read(_HEADER_BYTES))


def _single(path: Path, digest: Any, least: int) -> tuple[Header, bytes]:
    with _opened(path, digest, least) as (file, limit):
        start = file.read(_HEADER_BYTES)
        header = _parser(path)(start)
        return header, _whole(file, start, header.stop, limit)


def _pair(path: Path, digest: Any, least: int) -> tuple[Header, bytes]:
    path.stat()  # a pair that is gone altogether lacks no half
    if len(parts(path)) < 2:
        half = "header" if _is(path, "img") else "file with the voxels"
        raise Refused("unreadable", f"there is no {half} beside it")
    first, second = parts(path)
    with _opened(first, digest, least) as (file, limit):
        start = file.read(_HEADER_BYTES)
        header = _parser(path)(start)
        _whole(file, start, 0, limit)
    with _opened(second, digest, least) as (file, limit):
        return header, _whole(file, b"", header.stop, limit)


def _parser(path: Path) -> Callable[[bytes], Header]:
    if _is_half(path):
        return _pair_header
    return _single_header if _is(path, "nii") else _mgh_header


def _single_header(start: bytes) -> Header:
    header = _nifti_header(start, "single_magic")
    if header.start < header.fields.single_vox_offset:  # nibabel lets 0 pass
        raise Refused("unreadable", f"voxels begin at byte {header.start}, in the header")
    return header


def _pair_header(start: bytes) -> Header:
    """Of NIfTI; Analyze 7.5 has no affine, and what nibabel gives for it is a convention."""
    nifti = any(k.may_contain_header(start) for k in (nib.Nifti1Header, nib.Nifti2Header))
    if not nifti and nib.AnalyzeHeader.may_contain_header(start):
        raise Refused("no-affine", "the header is of Analyze 7.5, not of NIfTI")
    header = _nifti_header(start, "pair_magic")
    if header.start < 0:
        raise Refused("unreadable", f"voxels begin at byte {header.start}")
    return header


def _nifti_header(start: bytes, magic: str) -> Header:
    for kind in (nib.Nifti1Header, nib.Nifti2Header):
        if kind.may_contain_header(start):
            break
    else:
        raise Refused("unreadable", "there is no NIfTI header at its beginning")
    fields: Any = kind(start[: kind.template_dtype.itemsize])
    if fields["magic"].item() != getattr(kind, magic):
        raise Refused("unreadable", f"magic {fields['magic'].item()!r} belongs to another suffix")
    offset = int(fields["vox_offset"])
    if not (fields["sform_code"] or fields["qform_code"]):
        return Header(fields, offset, None)
    try:
        affine = fields.get_best_affine()
    except ValueError as error:  # a quaternion of no rotation
        raise Refused("bad-affine", str(error)) from error
    return Header(fields, offset, np.asarray(affine, dtype=np.float64), _qform(fields))


def _qform(fields: Any) -> np.ndarray | None:
    """The qform of a header that has an sform too; as it is not followed, no fault of it counts."""
    if not (fields["sform_code"] and fields["qform_code"]):
        return None
    try:
        return np.asarray(fields.get_qform(), dtype=np.float64)
    except (ValueError, HeaderDataError):  # a quaternion of no rotation
        return np.full((4, 4), np.nan)


def _mgh_header(start: bytes) -> Header:
    if len(start) < mghformat.header_dtype.itemsize:
        raise Refused("unreadable", "there is no MGH header at its beginning")
    fields: Any = mghformat.MGHHeader(start[: mghformat.header_dtype.itemsize])
    # nibabel fills in a default, and its flag, where there is none
    said = np.frombuffer(start, mghformat.header_dtype, 1)["goodRASFlag"][0] > 0
    affine = np.asarray(fields.get_affine(), dtype=np.float64) if said else None
    return Header(fields, fields.get_data_offset(), affine)


class _Hashed(io.RawIOBase):
    """A file that adds what is read from it to a digest."""

    def __init__(self, file: BinaryIO, digest: Any) -> None:
        self._file: Any = file
        self._digest = digest

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count: int = self._file.readinto(buffer)
        self._digest.update(memoryview(buffer)[:count])
        return count


@contextmanager
def _opened(path: Path, digest: Any, least: int) -> Iterator[tuple[Any, int]]:
    """What is in a file, unpacked, and the most bytes that can honestly be in it."""
    size = path.stat().st_size
    if not path.is_file():  # to open a pipe would wait for ever
        raise Refused("unreadable", "it is a folder, a pipe or a device")
    with path.open("rb") as plain:
        hashed = _Hashed(plain, digest)
        if not path.name.lower().endswith((".gz", ".mgz")):
            yield hashed, size
            return
        with igzip.IGzipFile(fileobj=hashed) as file:
            yield file, max(_MAX_COMPRESSION * size, _UNSUSPECTED_BYTES, least)


def _whole(file: Any, start: bytes, size: int, limit: int) -> bytes:
    """All of a file whose header asks for `size` bytes and whose `start` was read, or Refused."""
    if size > limit:
        raise Refused("unreadable", f"the header says {size} bytes, more than the file can hold")
    stream = start + file.read(max(size - len(start), 0) + _SLACK_BYTES)
    if file.read(1):
        raise Refused("unreadable", "there is more in the file than its header says")
    if len(stream) < size:
        raise Refused("unreadable", f"the header says {size} bytes, there are {len(stream)}")
    return stream


@contextmanager
def _damage_refused(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise_machines_fault(error, path)
        # its own text holds the path
        reason = f"{type(error).__name__}: {error.strerror or error}"
        raise Refused("unreadable", reason) from error
    except _DAMAGE as error:
        raise Refused("unreadable", f"{type(error).__name__}: {error}") from error


def _is(path: Path, suffix: str) -> bool:
    return path.name.lower().endswith((f".{suffix}", f".{suffix}.gz"))


def _is_half(path: Path) -> bool:
    return _is(path, "hdr") or _is(path, "img")


def _other_half(path: Path, suffix: str) -> Path | None:
    """The other file of a pair, packed like this one if there are both."""
    endings = [f".{suffix}.gz", f".{suffix}"]
    if not path.name.lower().endswith(".gz"):
        endings.reverse()
    endings += [ending.upper() for ending in endings]
    there = (path.with_name(stem(path) + ending) for ending in endings)
    return next((other for other in there if other.exists()), None)
