"""Find images with an affine (NIfTI, MGH), pair them with what belongs to them, and read them."""

import csv
import hashlib
import math
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from vqmri.errors import InputError
from vqmri.scans import image_file, kinds
from vqmri.scans.check import Refused, check_voxels
from vqmri.scans.volume import Candidate, Volume

_BIDS_NAME = re.compile(r"sub-[A-Za-z0-9]+(_[A-Za-z0-9]+-[A-Za-z0-9]+)*_[A-Za-z0-9]+")
_MISSING = {"", "n/a", "n.a.", "na", "nan", "null"}
"""Cells of a table without a value, in small letters."""


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
    masks: str | None = None,
) -> list[Candidate]:
    """Scans below `raw` that match the glob `images`, sorted by path.

    table: TSV or CSV relative to `raw`, `file_column` holding the scan's file name, or that without
        its ending, or without its last _suffix too, so that a row may stand for several scans;
        without a table a scan is of the subject sub-LABEL that its path names, else of its own
    modalities, labels, masks: globs of further channels, of label maps and of brain masks; a file
        belongs to the scan that has the same file name, or the same without its _suffix; a suffix
        that all scans have, as `_T1w`, does not count
    Raises InputError when nothing is found, when a glob leads out of `raw` or looks into a folder
    that may not be listed, when the table lacks a column, a scan or a scan's subject, or has two
    different rows of one, or when a name stands for several files or two people.
    """
    paths = _images(raw, images)
    if not paths:
        raise InputError(
            f"no NIfTI file matches {images!r} in {raw}, and none of FreeSurfer's. Correct "
            "ingest.raw, or the glob ingest.source.images (**/*.nii.gz looks into all folders)."
        )
    if table or labels or masks or modalities:
        _names_differ(raw, paths, "scans", "rows, modalities, labels and masks go by name")
    maps = _Partners(raw, labels, "label maps", paths) if labels else None
    brains = _Partners(raw, masks, "brain masks", paths) if masks else None
    others = [_Partners(raw, glob, name, paths) for name, glob in modalities.items()]
    columns = [file_column, subject_column, *covariates]
    rows = _read_table(raw / table, columns, paths) if table else {}
    people = _people({name: row[subject_column] for name, row in rows.items()})
    alone = len({path.name for path in paths}) == len(paths)
    return [
        Candidate(
            source=path.relative_to(raw).as_posix(),
            subject=people[path.name] if table else _subject(path.relative_to(raw), alone),
            covariates={name: value(rows[path.name][name]) for name in covariates if table},
            label=maps.of(path) if maps else None,
            modalities=tuple(other.of(path) for other in others),
            mask=brains.of(path) if brains else None,
        )
        for path in paths
    ]


def _images(raw: Path, glob: str) -> list[Path]:
    """Images that match, sorted; a pair of files once, by the name of its header."""
    if ".." in Path(glob).parts:
        raise InputError(
            f"{glob!r} leads out of {raw}; scans are looked for below it alone. Take out the '..', "
            "or set ingest.raw to the folder above."
        )
    found = (path for path in kinds.matching(raw, glob) if image_file.is_image(path))
    return sorted({image_file.of_file(path) for path in found})


def locate(raw: Path, name: str) -> Path:
    """The image of this name below `raw`; Refused when a link leads to one that is elsewhere."""
    root = Path(os.path.realpath(raw))
    for path in image_file.parts(raw / name):
        target = Path(os.path.realpath(path))  # unlike resolve(), silent about a loop
        if not target.is_relative_to(root):
            raise Refused("outside", "it, or a part of it, is a link out of the raw folder")
    return raw / name


def files(raw: Path, names: Sequence[str]) -> list[str]:
    """Paths relative to `raw` of all files that images consist of."""
    paths = [part for name in names for part in image_file.parts(raw / name)]
    return [path.relative_to(raw).as_posix() for path in paths]


class _Partners:
    """Files that each belong to a scan, by name."""

    def __init__(self, raw: Path, glob: str, kind: str, scans: Sequence[Path]) -> None:
        paths = _images(raw, glob)
        _names_differ(raw, paths, kind, f"{glob!r} must match one for each scan")
        self._names = {path.name: path.relative_to(raw).as_posix() for path in paths}
        taken = {scan.name for scan in scans}  # these belong to the scan of their own name
        self._stems: dict[str, list[str]] = {}
        for path in paths:
            if path.name not in taken:
                for stem in {image_file.stem(path), _unsuffixed(path)}:
                    self._stems.setdefault(stem, []).append(path.name)
        suffixes = {image_file.stem(scan).removeprefix(_unsuffixed(scan)) for scan in scans}
        self._shared = suffixes.pop() if len(suffixes) == 1 and len(scans) > 1 else ""
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
        names = sorted({name for stem in self._roots(scan) for name in self._stems.get(stem, ())})
        if len(names) > 1:
            raise InputError(
                f"{self._kind}: {self._glob!r} matches {names}, which all belong to {scan.name}. "
                "Make it narrower."
            )
        return self._names[names[0]] if names else ""

    def _roots(self, scan: Path) -> set[str]:
        """What the stem of its file may be: its own, and without what does not tell scans apart."""
        stem = image_file.stem(scan)
        roots = {stem, stem.removesuffix(self._shared)} if self._shared else {stem}
        if _BIDS_NAME.fullmatch(stem):
            roots.add(_unsuffixed(scan))
        return roots - {""}


def _names_differ(raw: Path, paths: list[Path], kind: str, reason: str) -> None:
    names = Counter(path.name for path in paths)
    if names and max(names.values()) > 1:
        twice = names.most_common(1)[0][0]
        raise InputError(f"{raw} has several {kind} called {twice!r}: {reason}. Rename them.")


def _unsuffixed(path: Path) -> str:
    """The name without its last _suffix, which begins with a letter; "" if it has none."""
    found = re.fullmatch(r"(.+)_[A-Za-z][A-Za-z0-9]*", image_file.stem(path))
    return found.group(1) if found else ""


def _subject(path: Path, alone: bool) -> str:
    """The person, where no table says: sub-LABEL of the name or a folder, else the whole name.

    alone: the name stands for one file; else the folders are needed to tell people apart
    Names that are one without their punctuation are one person: a split then cannot part them.
    """
    for part in (path.name, *(parent.name for parent in path.parents)):
        if found := re.match(r"sub-([A-Za-z0-9\u0080-\U0010ffff]+)", part):
            return _clean(found.group(1))
    stem = image_file.stem(path)
    return _clean(stem if alone else f"{path.parent.as_posix()}{stem}") or "unnamed"


def _people(subjects: Mapping[str, str]) -> dict[str, str]:
    """File name to the label of its person, from what the table calls each of them."""
    names: dict[str, str] = {}
    people: dict[str, str] = {}
    for file, name in subjects.items():
        label = "" if _is_missing(name) else _clean(name.strip().removeprefix("sub-"))
        if not label:
            raise InputError(
                f"ingest.source.table calls the subject of {file!r} {name!r}: that is nobody. "
                "Write whose scan it is."
            )
        if names.setdefault(label, name) != name:
            raise InputError(
                f"ingest.source.table has subjects {names[label]!r} and {name!r}, and a label has "
                "only their letters and digits, which are the same. Rename one of them."
            )
        people[file] = label
    return people


def _clean(name: str) -> str:
    """As BIDS has labels: A to Z and digits alone; a hash stands for letters beyond them."""
    name = unicodedata.normalize("NFC", name)  # a Mac writes é as two
    label = re.sub(r"[^A-Za-z0-9]", "", name)
    if all(letter.isascii() or not letter.isalnum() for letter in name):
        return label
    return label + hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()[:8]


def _read_table(path: Path, columns: list[str], scans: list[Path]) -> dict[str, dict[str, str]]:
    """Rows of the subject table by the scans' file names; all scans have one.

    columns: the one that names the scans, the one that names people, and those of covariates
    """
    if not path.is_file():
        raise InputError(
            f"{path} is missing: it is ingest.source.table of params.yaml. Correct it; it is "
            "relative to ingest.raw."
        )
    delimiter = "," if path.suffix == ".csv" else "\t"
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, delimiter=delimiter, restval="")
            if missing := set(columns) - set(reader.fieldnames or ()):
                asked = next(column for column in columns if column in missing)
                option = dict(zip(columns, ("file_column", "subject_column"), strict=False))
                raise InputError(
                    f"{path} has no column {asked!r}; it has {reader.fieldnames}. Name one of "
                    f"these as ingest.source.{option.get(asked, 'covariates')} in params.yaml, or "
                    "add it."
                )
            rows: dict[str, dict[str, str]] = {}
            twice = set()
            for row in reader:
                first = rows.setdefault(row[columns[0]], row)
                if any(first[name] != row[name] for name in columns):
                    twice.add(row[columns[0]])
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path} is no table in UTF-8: {error}. Save it as one.") from None
    found = {}
    for scan in scans:
        names = [name for name in (scan.name, image_file.stem(scan), _unsuffixed(scan)) if name]
        key = next((name for name in names if name in rows), None)
        if key is None:
            raise InputError(
                f"{path} has no row with {scan.name!r} in its column {columns[0]!r}, nor with "
                f"{' or '.join(map(repr, names[1:]))}. Add it, or make ingest.source.images "
                "narrower."
            )
        if key in twice:  # of a name that is no scan's, as "n/a", there may be many
            raise InputError(f"{path} has two different rows of {key!r}. Remove the wrong one.")
        found[scan.name] = rows[key]
    return found


def _is_missing(cell: str) -> bool:
    return cell.strip().casefold() in _MISSING


def value(text: str) -> str | float | None:
    """What a cell of a table says: a finite number, a text, or None where it is missing."""
    if _is_missing(text):
        return None
    try:
        number = float(text)
    except ValueError:
        return text.strip()
    return number if math.isfinite(number) else None


def read(path: Path, *, least: int = 0) -> tuple[Volume, str]:
    """The volume in a file and the sha256 of the file; `least` as `image_file.read` has it.

    Raises Refused.
    """
    data, affine, qform, sha256 = image_file.read(path, np.float32, least=least)
    check_voxels(data)
    return Volume(data[None], affine, qform=qform), sha256


def read_label(path: Path, volume: Volume, label_values: Sequence[int]) -> np.ndarray:
    """The label map of a volume, as float32 indices into `label_values`.

    Raises Refused when it is absent, lies on another grid, or has another value.
    """
    check_label(path, volume)
    try:
        # float32 would round integers above 2^24
        data, *_ = image_file.read(path, np.float64, least=_least(volume))
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


def read_mask(path: Path, volume: Volume) -> np.ndarray:
    """The brain mask of a volume, 1 where the file is above 0; Refused as a label map is."""
    if path.is_dir():  # the raw folder, as of a scan to which none was found
        raise Refused("mask-missing", "no file that matches `masks` belongs to it by name")
    try:
        check_label(path, volume)
        mask = image_file.read(path, np.float32, least=_least(volume))[0]
    except Refused as refusal:
        code = refusal.code.replace("label", "mask")
        raise Refused(code, f"brain mask: {refusal.reason}") from refusal
    return (mask > 0).astype(np.float32)


def _least(volume: Volume) -> int:
    return image_file.least_of(volume.data[0].size)


def check_label(path: Path, volume: Volume) -> None:
    """Raises Refused where the label map is absent or, by its header, lies on another grid."""
    if path.is_dir():
        raise Refused("label-missing", "no file that matches `labels` belongs to it by name")
    try:
        label = image_file.read_header(path)
    except Refused as refusal:
        raise Refused(refusal.code, f"label map: {refusal.reason}") from refusal
    assert volume.affine is not None
    if label.affine is None:
        raise Refused("label-mismatch", "the label map does not say where it lies")
    same_shape = label.shape[:3] == volume.data.shape[1:]
    if not same_shape or not np.allclose(label.affine, volume.affine, atol=1e-3):
        raise Refused("label-mismatch", f"label map of shape {label.shape}")
