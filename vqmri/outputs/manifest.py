"""MANIFEST.json: what an output holds, what it was made of, and the hash of every byte."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import Any

from vqmri.errors import InputError, IntegrityError

MANIFEST = "MANIFEST.json"
FORMAT_VERSION = 2
_PACKAGES = ("monai", "nibabel", "numpy", "torch", "vqmri", "zarr")


def sha256_of(path: Path) -> str:
    """Hex sha256 of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True)
class Identity:
    """What decides an output before it is made.

    stage: name of the stage that makes it
    format_version: raised by hand when the stage's code changes what it writes
    params: the stage's own values of params.yaml
    inputs: name of each input to a digest of it (a manifest's sha256 for a stage's output)
    """

    stage: str
    format_version: int
    params: Mapping[str, Any]
    inputs: Mapping[str, str]

    @property
    def fingerprint(self) -> str:
        """Hex sha256 of all of it; equal inputs and params have equal fingerprints."""
        text = json.dumps(asdict(self), sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()


@dataclass(frozen=True)
class Manifest:
    """Nothing in it differs between two equal runs: no time, no host, no run id.

    format_version: of the manifest itself
    fingerprint: that of the output's `Identity`
    items: path relative to the output's folder, with forward slashes, to the sha256 of the file
    provenance: stage, its params and inputs, and versions of the packages that matter
    """

    format_version: int
    fingerprint: str
    provenance: Mapping[str, Any]
    items: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, folder: Path, identity: Identity) -> "Manifest":
        """Describe what lies in `folder` now."""
        return cls(
            format_version=FORMAT_VERSION,
            fingerprint=identity.fingerprint,
            provenance={
                **asdict(identity),
                "packages": {name: version(name) for name in _PACKAGES},
            },
            items=_digests(folder, files_below(folder)),
        )

    @classmethod
    def read(cls, folder: Path) -> "Manifest":
        """Read a published manifest. InputError when it is absent, IntegrityError when damaged."""
        path = folder / MANIFEST
        if not path.is_file():
            raise InputError(
                f"{folder} is no published output: it has no {MANIFEST}. Name a folder that a "
                "stage has published, as data/volumes."
            )
        try:
            text = path.read_text(encoding="utf-8")
            content = json.loads(text)
            if content["format_version"] != FORMAT_VERSION:
                raise IntegrityError(
                    f"{path} has format version {content['format_version']}, this code reads "
                    f"{FORMAT_VERSION}. Make this output again."
                )
            del content["checksum"]
            manifest = cls(**content)
            _check_names(manifest.items)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise IntegrityError(f"{path} is damaged ({error}). Make this output again.") from None
        if text != manifest._text():
            raise IntegrityError(
                f"{path} is damaged (its text and its checksum differ). Make this output again."
            )
        return manifest

    def write(self, folder: Path) -> None:
        """Put it into `folder`, in place of one that is there."""
        (folder / MANIFEST).write_text(self._text(), encoding="utf-8")

    def _text(self) -> str:
        """What stands in the file: all fields, and the sha256 of their JSON."""
        content = asdict(self)
        checksum = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
        return json.dumps(content | {"checksum": checksum}, indent=1, sort_keys=True) + "\n"

    def check(self, folder: Path, names: Iterable[str]) -> None:
        """IntegrityError unless each named item is there with the bytes that were published."""
        names = list(names)
        _check_folders(folder, names)
        for name in names:
            if name not in self.items or not (folder / name).is_file():
                raise IntegrityError(f"{folder / name} is missing. Make this output again.")
        for name, found in _digests(folder, names).items():
            if found != self.items[name]:
                raise IntegrityError(
                    f"{folder / name} has changed since it was published (its sha256 differs from "
                    f"{MANIFEST}). Make this output again."
                )


def _check_names(items: Mapping[str, str]) -> None:
    """ValueError for a name that leads out of the folder; whoever sends an output wrote them."""
    for name, sha256 in items.items():
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or "\0" in name or not path.parts:
            raise ValueError(f"an item is called {name!r}, which is no file below the folder")
        if not isinstance(sha256, str):
            raise TypeError(f"the sha256 of {name!r} is {sha256!r}")


def _check_folders(folder: Path, names: Iterable[str]) -> None:
    """IntegrityError for a folder inside that is a link to one outside; files may be links."""
    inside = folder.resolve()
    for parent in {PurePosixPath(name).parent for name in names}:
        if not (folder / parent).resolve().is_relative_to(inside):
            raise IntegrityError(
                f"{folder / parent} is a link that leads out of {folder}. Make this output again."
            )


def _digests(folder: Path, names: Sequence[str]) -> dict[str, str]:
    """sha256 of each file; on all cores, for hashing leaves Python's lock alone."""
    with ThreadPoolExecutor() as pool:
        return dict(zip(names, pool.map(sha256_of, (folder / n for n in names)), strict=True))


def files_below(folder: Path) -> list[str]:
    """Relative paths of all files below `folder`, sorted, the manifest left out."""
    found = (path for path in folder.rglob("*") if path.is_file())
    names = sorted(path.relative_to(folder).as_posix() for path in found)
    return [name for name in names if name != MANIFEST]


def verify(folder: Path) -> Manifest:
    """Check every byte of a published output; IntegrityError names what is wrong."""
    manifest = Manifest.read(folder)
    manifest.check(folder, manifest.items)
    strangers = sorted(set(files_below(folder)) - set(manifest.items))
    if strangers:
        raise IntegrityError(f"{folder / strangers[0]} is not in {MANIFEST}. Remove it.")
    return manifest


def digest(folder: Path) -> str:
    """What stands for a published output among the inputs of a later stage."""
    Manifest.read(folder)
    return sha256_of(folder / MANIFEST)
