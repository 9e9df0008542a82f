"""Find and read NIfTI files."""

import csv
import gzip
import hashlib
import io
import math
import re
import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
from nibabel.filebasedimages import ImageFileError
from nibabel.spatialimages import HeaderDataError

from vqmri.errors import InputError
from vqmri.scans.check import MAX_VOXELS, Refused, check_header, check_voxels
from vqmri.scans.volume import Candidate, Volume

SUFFIXES = (".nii", ".nii.gz")
_HEADER_BYTES = 540
_SLACK_BYTES = 2**20
_MAX_BYTES = MAX_VOXELS * 8
_UNSUSPECTED_BYTES = 2**26
_MAX_COMPRESSION = 500  # of larger files that hold anything; deflate ends at 1032, with zeros
_MISSING = {"", "n/a", "NA", "nan"}
_DAMAGE = (
    OSError, EOFError, ValueError, KeyError, OverflowError, zlib.error,
    HeaderDataError, ImageFileError,
)  # fmt: skip
"""What nibabel and gzip raise over a damaged file."""


def find(
    raw: Path,
    *,
    images: str,
    modalities: Mapping[str, str],
    labels: str | None,
    table: str | None,
    file_column: str,
    subject_column: str,
    covariates: list[str],
) -> list[Candidate]:
    """Scans below `raw` that match the glob `images`, sorted by path.

    table: TSV or CSV relative to `raw`, one row per scan, `file_column` holding the file's name;
        without one a scan is of the subject sub-LABEL that its path names, else of its own
    modalities, labels: globs of further channels and of label maps; a file belongs to the scan that
        has the same file name or, where names are as in BIDS, the same but for the last _suffix
    Raises InputError when nothing is found, when the table lacks a column or a scan, or when a name
    stands for several files.
    """
    paths = sorted(p for p in raw.glob(images) if p.name.endswith(SUFFIXES))
    if not paths:
        raise InputError(f"no NIfTI file matches {images!r} in {raw}.")
    if table or labels or modalities:
        _names_differ(raw, paths, "scans", "rows, modalities and labels go by name")
    rows = _read_table(raw / table, [file_column, subject_column, *covariates]) if table else {}
    maps = _Partners(raw, labels, "label maps") if labels else None
    others = [_Partners(raw, glob, name) for name, glob in modalities.items()]
    found = []
    for path in paths:
        row = rows.get(path.name)
        if table and row is None:
            raise InputError(
                f"{raw / table} has no row with {path.name!r} in its column {file_column!r}."
            )
        found.append(
            Candidate(
                source=path.relative_to(raw).as_posix(),
                subject=row[subject_column] if row else _subject(path),
                covariates={name: _value(row[name]) for name in covariates} if row else {},
                label=maps.of(path) if maps else None,
                modalities=tuple(other.of(path) for other in others),
            )
        )
    return found


class _Partners:
    """Files that each belong to a scan, by name."""

    def __init__(self, raw: Path, glob: str, kind: str) -> None:
        paths = sorted(p for p in raw.glob(glob) if p.name.endswith(SUFFIXES))
        _names_differ(raw, paths, kind, f"{glob!r} must match one for each scan")
        self._names = {path.name: path.relative_to(raw).as_posix() for path in paths}
        self._stems: dict[str, list[str]] = {}
        for path in paths:
            if stem := _bids_stem(path):
                self._stems.setdefault(stem, []).append(path.name)
        self._raw, self._glob, self._kind = raw, glob, kind

    def of(self, scan: Path) -> str:
        """Path of the file that belongs to a scan, "" if there is none."""
        if scan.name in self._names:
            name = self._names[scan.name]
            if self._raw / name == scan:
                raise InputError(
                    f"{self._kind}: {self._glob!r} matches {scan}, a scan itself. Make it narrower."
                )
            return name
        names = self._stems.get(_bids_stem(scan), [])
        if len(names) > 1:
            raise InputError(
                f"{self._kind}: {self._glob!r} matches {names}, which all belong to {scan.name}. "
                "Make it narrower."
            )
        return self._names[names[0]] if names else ""


def _names_differ(raw: Path, paths: list[Path], kind: str, reason: str) -> None:
    names = Counter(path.name for path in paths)
    if names and max(names.values()) > 1:
        twice = names.most_common(1)[0][0]
        raise InputError(f"{raw} has several {kind} called {twice!r}: {reason}.")


def _bids_stem(path: Path) -> str:
    """The name without its last _suffix, if it is of the form sub-LABEL[_KEY-VALUE…]_SUFFIX."""
    found = re.match(
        r"(sub-[A-Za-z0-9]+(_[A-Za-z0-9]+-[A-Za-z0-9]+)*)_[A-Za-z0-9]+\.nii", path.name
    )
    return found.group(1) if found else ""


def _subject(path: Path) -> str:
    """The person, where no table says: sub-LABEL of the name or a folder, else the whole name."""
    for part in (path.name, *(parent.name for parent in path.parents)):
        if found := re.match(r"sub-([A-Za-z0-9]+)", part):
            return found.group(1)
    return path.name.split(".")[0]


def _read_table(path: Path, columns: list[str]) -> dict[str, dict[str, str]]:
    """Rows of the subject table by file name."""
    if not path.is_file():
        raise InputError(f"{path} is missing: it is the `table` of params.yaml.")
    delimiter = "," if path.suffix == ".csv" else "\t"
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file, delimiter=delimiter, restval="")
        missing = set(columns) - set(reader.fieldnames or ())
        if missing:
            raise InputError(
                f"{path} has no column {sorted(missing)[0]!r}; it has {reader.fieldnames}."
            )
        return {row[columns[0]]: row for row in reader}


def _value(text: str) -> str | float | None:
    if text.strip() in _MISSING:
        return None
    try:
        number = float(text)
    except ValueError:
        return text.strip()
    return number if math.isfinite(number) else None


def read(path: Path) -> tuple[Volume, str]:
    """The volume in a file and the sha256 of the file; raises Refused."""
    data, affine, sha256 = _load(path, np.float32)
    check_voxels(data)
    return Volume(data[None], affine), sha256


def read_label(path: Path, volume: Volume, label_values: Sequence[int]) -> np.ndarray:
    """The label map of a volume, as float32 indices into `label_values`.

    Raises Refused when it is absent, lies on another grid, or has another value.
    """
    check_label(path, volume)
    try:
        data, _, _ = _load(path, np.float64)  # float32 would round integers above 2^24
    except Refused as refusal:
        raise Refused(refusal.code, f"label map: {refusal.reason}") from refusal
    order = np.argsort(label_values)
    values = np.asarray(label_values, dtype=np.float64)[order]
    nearest = np.clip(np.searchsorted(values, data), 0, len(values) - 1)
    strange = np.unique(data[values[nearest] != data])
    if strange.size:
        raise Refused(
            "label-values", f"{strange[:5].tolist()} not among label_values {list(label_values)}"
        )
    return order[nearest].astype(np.float32)


def _load(path: Path, dtype: type[np.floating]) -> tuple[np.ndarray, np.ndarray, str]:
    """Voxels, affine and sha256 of a file whose header passes the checks; raises Refused.

    A `.nii.gz` is read to its end, so that its checksum counts; nibabel alone would not notice.
    """
    try:
        raw = path.read_bytes()
        stream = _decompress(raw) if path.name.endswith(".gz") else raw
        # what is no number, or beyond float32, is refused by the checks and needs no warning
        with np.errstate(over="ignore", invalid="ignore"):
            image = _parse(stream)
            header: Any = image.header
            codes = (int(header["sform_code"]), int(header["qform_code"]))
            affine = np.asarray(image.affine, dtype=np.float64) if any(codes) else None
            check_header(image.shape, header.get_data_dtype(), affine)
            data = np.asarray(image.dataobj, dtype=dtype).reshape(image.shape[:3])
    except _DAMAGE as error:
        raise Refused("unreadable", f"{type(error).__name__}: {error}") from error
    assert affine is not None
    return data, affine, hashlib.sha256(raw).hexdigest()


def _decompress(raw: bytes) -> bytes:
    """The whole gzip stream, but never much more than its own header asks for."""
    with gzip.GzipFile(fileobj=io.BytesIO(raw)) as file:
        header = file.read(_HEADER_BYTES)
        size = _expected_bytes(header)
        if size > max(_MAX_COMPRESSION * len(raw), _UNSUSPECTED_BYTES):
            raise Refused("unreadable", f"{len(raw)} bytes cannot hold the {size} of its header")
        rest = file.read(max(size - len(header), 0) + _SLACK_BYTES)
        if file.read(1):
            raise Refused("unreadable", "there is more in the file than its header says")
        return header + rest


def _expected_bytes(header: bytes) -> int:
    """File size that a NIfTI-1 or -2 header asks for; Refused when it is beyond any scan's."""
    kind = _header_class(header)
    fields = kind(header[: kind.template_dtype.itemsize], check=False)
    shape = fields.get_data_shape()
    size = int(np.prod(shape, dtype=object)) * fields.get_data_dtype().itemsize
    if size > _MAX_BYTES:
        raise Refused("too-large", f"the header says shape {shape}")
    return size + max(int(fields["vox_offset"]), 0)


def _header_class(header: bytes) -> Any:
    for kind in (nib.Nifti1Header, nib.Nifti2Header):
        if kind.may_contain_header(header):
            return kind
    raise Refused("unreadable", "there is no NIfTI header at its beginning")


def _parse(stream: bytes) -> Any:
    kind = _header_class(stream[:_HEADER_BYTES])
    size = _expected_bytes(stream[:_HEADER_BYTES])
    if size > len(stream):  # nibabel would allocate what the header says before it reads
        raise Refused("unreadable", f"the header says {size} bytes, there are {len(stream)}")
    image = nib.Nifti1Image if kind is nib.Nifti1Header else nib.Nifti2Image
    return image.from_bytes(stream)


def check_label(path: Path, volume: Volume) -> None:
    """Refuse a scan whose label map (by its header) is absent or lies on another grid."""
    if not path.is_file():
        raise Refused("label-missing", "no file that matches `labels` belongs to it by name")
    try:
        label: Any = nib.load(path)
    except _DAMAGE as error:
        raise Refused("unreadable", f"label map: {type(error).__name__}: {error}") from error
    same_shape = label.shape[:3] == volume.data.shape[1:]
    assert volume.affine is not None
    if not same_shape or not np.allclose(label.affine, volume.affine, atol=1e-3):
        raise Refused("label-mismatch", f"label map of shape {label.shape}")
