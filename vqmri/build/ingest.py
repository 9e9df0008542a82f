"""The source of scans that params name."""

from collections.abc import Callable
from pathlib import Path

from vqmri.outputs import sha256_of
from vqmri.params import Ingest, NiftiSource
from vqmri.scans import nifti, phantom
from vqmri.scans.volume import Candidate, Volume

Reader = Callable[[Candidate], tuple[Volume, str]]


def find(params: Ingest, seed: int, root: Path) -> list[Candidate]:
    """All scans of the source, unread."""
    source = params.source
    if isinstance(source, NiftiSource):
        options = source.model_dump(exclude={"kind"})
        return nifti.find(root / params.raw, **options)
    return phantom.find(count=source.count, seed=seed)


def reader(params: Ingest, seed: int, root: Path) -> Reader:
    """How a candidate becomes a volume; the reader raises Refused."""
    source = params.source
    if isinstance(source, NiftiSource):
        return lambda candidate: _read_nifti(root / params.raw, candidate)
    return lambda candidate: phantom.read(candidate, seed=seed, spacing=source.spacing)


def _read_nifti(raw: Path, candidate: Candidate) -> tuple[Volume, str]:
    volume, sha256 = nifti.read(raw / candidate.source)
    if candidate.label is not None:
        nifti.check_label(raw / candidate.label, volume)
    return volume, sha256


def digests(params: Ingest, candidates: list[Candidate], root: Path) -> dict[str, str]:
    """Path to sha256 of every raw file that the volumes depend on; none for phantoms."""
    source = params.source
    if not isinstance(source, NiftiSource):
        return {}
    names = [candidate.source for candidate in candidates]
    names += [candidate.label for candidate in candidates if candidate.label]
    names += [source.table] if source.table else []
    return {name: _digest(root / params.raw / name) for name in names}


def _digest(path: Path) -> str:
    try:
        return sha256_of(path)
    except OSError:  # a link to nowhere, a folder: the reader will refuse it
        return "unreadable"
