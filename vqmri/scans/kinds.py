"""What a folder of raw scans is, for a user who leaves it to be found out.

Pictures (idx, images) and phantoms are not guessed: a folder of scans may hold pictures of them.
"""

import fnmatch
import json
import os
import re
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

from vqmri.errors import InputError
from vqmri.scans import image_file
from vqmri.scans.check import raise_machines_fault
from vqmri.scans.dicom_image import START, is_marked, may_be_dicom

Kind = Literal["bids", "nifti", "dicom"]

_DESCRIPTION = "dataset_description.json"
_ANATOMY = ("sub-*/anat/sub-*", "sub-*/ses-*/anat/sub-*")
_ENDINGS = (".nii", ".nii.gz")
_DICOM_UID = b"1.2.840.10008."
"""Beginning of all that the standard names, so of the SOP class that a bare file begins with."""

_NO_SCAN = re.compile(
    r"(^|/)(labels?|masks?|seg|segmentations?)(Tr|Ts)?/|"
    r"_(dseg|seg|probseg|labels?|masks?|brainmask|aseg)\.[a-z.]+$",
    re.IGNORECASE,
)
_LOST = "lost+found"  # of every ext4 disk, at its top, for root alone
_ENOUGH = 1000  # files counted of a folder that is known to hold both kinds


def kind_of(raw: Path) -> Kind:
    """The kind of source that the folder `raw` is.

    A BIDS data set by its description or by the names of its anatomical images, whatever else is
    in it. Else DICOM if there are files that begin as it does, whatever their names, and NIfTI if
    there are images with an affine (those of `image_file`) by their names. What is hidden does not
    count; of links only the names do, and links to folders not at all.
    Raises InputError when `raw` is no folder, holds both NIfTI and DICOM, or neither, or when a
    folder in it may not be listed.
    """
    if not raw.is_dir():
        raise InputError(
            f"{raw}, the folder of raw scans, is missing or is no folder. Set ingest.raw in "
            "params.yaml to the one that holds them."
        )
    if _is_bids(raw):
        return "bids"
    nifti, dicom, all_counted = _count(raw)
    if nifti and dicom:
        least = "" if all_counted else "at least "
        raise InputError(
            f"{raw} holds both, {least}{nifti} files of NIfTI or FreeSurfer and {least}{dicom} of "
            "DICOM. Set ingest.source.kind to one of them, nifti or dicom, or name a folder that "
            "has one kind alone."
        )
    if nifti:
        return "nifti"
    if dicom:
        return "dicom"
    raise InputError(
        f"{raw} holds no scans. Looked for: a BIDS data set ({_DESCRIPTION}, or "
        "sub-*/[ses-*/]anat/sub-*.nii[.gz]), images by their names (.nii, .hdr with .img, .mgh, "
        ".mgz), DICOM files by how they begin. Hidden files and links to folders are passed over. "
        "Pictures and phantoms are not guessed: set ingest.source.kind to idx, images or phantom."
    )


def check_plain(raw: Path, sources: Sequence[str]) -> None:
    """InputError when images below `raw` seem to be label maps or masks, which are no scans."""
    strange = [source for source in sources if _NO_SCAN.search(source)]
    if strange:
        named = set(strange)
        scans = [source for source in sources if source not in named]
        images = _glob(scans) if scans else "*.nii.gz"
        raise InputError(
            f"{raw} holds what seems to be label maps or masks ({len(strange)} files, as "
            f"{strange[0]}). Say in params.yaml which images are scans, perhaps\n"
            "  ingest:\n    source:\n      kind: nifti\n"
            f"      images: {json.dumps(images)}\n"
            f"      masks: {json.dumps(_glob(strange))}    # or labels:"
        )


def _glob(sources: Sequence[str]) -> str:
    """One that these would match, by the folder and the ending that most of them have."""
    name = re.compile(r"[^/]*?(_[A-Za-z]\w*)?(\.[A-Za-z.]+)$")
    globs = (name.sub(r"*\1\2", source) for source in sources)
    return Counter(globs).most_common(1)[0][0]


def _is_bids(raw: Path) -> bool:
    if (raw / _DESCRIPTION).is_file():
        return True
    images = (path for glob in _ANATOMY for path in raw.glob(glob))
    return any(path.name.lower().endswith(_ENDINGS) for path in images)


def _count(raw: Path) -> tuple[int, int, bool]:
    """Numbers of images by name and of DICOM files, and whether all files were counted."""
    nifti = dicom = 0
    for path in files(raw):
        # a DICOM file may have any name, so its beginning counts first
        if _is_dicom(path):
            dicom += 1
        elif image_file.is_image(path):
            nifti += 1
        if nifti and dicom and nifti + dicom >= _ENOUGH:
            return nifti, dicom, False
    return nifti, dicom, True


def files(raw: Path) -> Iterator[Path]:
    """All that is below `raw` and no folder, in the order of names, without what is hidden.

    InputError for a folder that may not be listed.
    """
    for folder, names in _folders(raw, "**/*"):
        yield from (Path(folder, name) for name in sorted(names) if not name.startswith("."))


def matching(raw: Path, glob: str) -> list[Path]:
    """Paths below `raw` that match a glob, in no order.

    What is hidden, as `.git/annex` or a Mac's `._scan.nii`, does not, unless the glob names it.
    InputError for a folder in which the glob looks and that may not be listed.
    """
    check_listed(raw, glob)
    asked = _names_hidden(glob)
    return [
        path
        for path in raw.glob(glob)
        if asked or not any(part.startswith(".") for part in path.relative_to(raw).parts)
    ]


def _names_hidden(glob: str) -> bool:
    return any(part.startswith(".") for part in Path(glob).parts)


def check_listed(raw: Path, glob: str) -> None:
    """InputError for a folder in which a glob would look and that may not be listed.

    A glob takes it for empty, and its scans would be lost without a word.
    """
    for _ in _folders(raw, glob):
        pass


def _folders(raw: Path, glob: str) -> Iterator[tuple[str, list[str]]]:
    """Each folder in which a glob looks, with the names of its files; hidden ones if it names one.

    As a glob does, `*` follows links and `**` does not.
    """
    if not raw.is_dir():
        return
    parts = Path(glob).parts[:-1]
    deep = "**" in parts
    first = parts.index("**") if deep else len(parts)
    dots = _names_hidden(glob)
    for folder, below, names in os.walk(raw, onerror=_not_listed, followlinks=not deep):
        level = len(Path(folder).relative_to(raw).parts)
        if level < first:
            below[:] = fnmatch.filter(below, parts[level])
        elif not deep:
            below.clear()
        below[:] = sorted(name for name in below if dots or not name.startswith("."))
        if _LOST in below:
            below.remove(_LOST)
        yield folder, names


def _not_listed(error: OSError) -> None:
    """What os.walk would pass over."""
    if isinstance(error, PermissionError):
        raise InputError(
            f"{error.filename} may not be listed ({error.strerror}), and scans in it would be "
            "missed. Let this user read it, or move it out of the folder of raw scans."
        ) from error
    raise error


def _is_dicom(path: Path) -> bool:
    """By the beginning of a plain file; a link or a pipe is not opened."""
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            return False
        with path.open("rb", buffering=0) as file:
            start = file.read(START)
    except OSError as error:  # nobody may read it
        raise_machines_fault(error, path)
        return False
    return is_marked(start) or (may_be_dicom(start) and _DICOM_UID in start)
