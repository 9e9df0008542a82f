"""The source of scans that params name."""

from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

from vqmri.errors import ParamsError
from vqmri.outputs import sha256_of
from vqmri.params import BidsSource, DicomSource, IdxSource, ImagesSource, Ingest, NiftiSource
from vqmri.scans import bids_dataset, dicom, idx, images, modalities, nifti, phantom, raster
from vqmri.scans.normalise import normalise
from vqmri.scans.volume import Candidate, Channel, Volume
from vqmri.shapes import Box

Reader = Callable[[Candidate], tuple[Volume, str]]
Normaliser = Callable[[Volume], tuple[Volume, Box]]


def find(params: Ingest, seed: int, root: Path) -> list[Candidate]:
    """All scans of the source, unread."""
    source, raw = params.source, root / params.raw
    if isinstance(source, NiftiSource):
        return nifti.find(raw, **source.model_dump(exclude={"kind", "label_values"}))
    if isinstance(source, BidsSource):
        return bids_dataset.find(
            raw,
            suffix=source.suffix,
            sessions=source.session,
            acquisitions=source.acquisition,
            covariates=source.covariates,
        )
    if isinstance(source, DicomSource):
        key = _key(source, root)
        options = source.model_dump(exclude={"kind", "subject_key"})
        return dicom.find(raw, subject_key=key, **options)
    if isinstance(source, IdxSource):
        return idx.find(raw, files=_idx_files(source), covariate=source.covariate)
    if isinstance(source, ImagesSource):
        return images.find(raw, **source.model_dump(exclude={"kind", "channels"}))
    return phantom.find(count=source.count, seed=seed)


def channels(params: Ingest, root: Path) -> tuple[Channel, ...]:
    """What the channels of a volume are: grey values, and last of all the label map."""
    source = params.source
    if isinstance(source, NiftiSource):
        label = [Channel("dseg", tuple(source.label_values))] if source.label_values else []
        return (Channel("image"), *map(Channel, source.modalities), *label)
    if isinstance(source, IdxSource):
        number = idx.num_channels(root / params.raw, files=_idx_files(source))
        return tuple(map(Channel, raster.COLOURS[number]))
    if isinstance(source, ImagesSource):
        return tuple(map(Channel, raster.COLOURS[source.channels]))
    return (Channel("image"),)


def reader(params: Ingest, seed: int, root: Path) -> Reader:
    """How a candidate becomes a volume; the reader raises Refused."""
    source, raw = params.source, root / params.raw
    if isinstance(source, NiftiSource):
        names, values = list(source.modalities), source.label_values
        return lambda candidate: modalities.read(raw, candidate, names=names, label_values=values)
    if isinstance(source, BidsSource):
        return lambda candidate: nifti.read(nifti.locate(raw, candidate.source))
    if isinstance(source, DicomSource):
        return lambda candidate: dicom.read(raw, candidate)
    if isinstance(source, IdxSource):
        files = _idx_files(source)
        return lambda candidate: idx.read(raw, candidate, files=files)
    if isinstance(source, ImagesSource):
        number = source.channels
        return lambda candidate: images.read(raw, candidate, channels=number)
    spacing = source.spacing
    return lambda candidate: phantom.read(candidate, seed=seed, spacing=spacing)


def normaliser(params: Ingest) -> Normaliser:
    """How a volume comes to have the shape and the scale of all; it raises Refused."""
    shape, spacing, percentiles = params.shape, params.spacing, params.percentiles
    if spacing is None or percentiles is None:
        return lambda volume: raster.fit(volume, shape)
    return lambda volume: normalise(volume, spacing=spacing, shape=shape, percentiles=percentiles)


def digests(params: Ingest, candidates: list[Candidate], root: Path) -> dict[str, str]:
    """Path to sha256 of every raw file that the volumes depend on; none for phantoms."""
    source, raw = params.source, root / params.raw
    if isinstance(source, DicomSource):
        return {c.source: _series_digest(raw, c) for c in candidates} | _key_digest(source, root)
    names: list[str] = []
    if isinstance(source, NiftiSource):
        names += [candidate.source for candidate in candidates]
        names += [candidate.label for candidate in candidates if candidate.label]
        names += [name for candidate in candidates for name in candidate.modalities if name]
        names = nifti.files(raw, names)
        names += [source.table] if source.table else []
    elif isinstance(source, BidsSource):
        names += [candidate.source for candidate in candidates]
        names += bids_dataset.tables(raw, candidates) if source.covariates else []
    elif isinstance(source, IdxSource):
        names += _idx_files(source).values()
    elif isinstance(source, ImagesSource):
        names += images.files(raw, candidates)
    return {name: _digest(raw / name) for name in names}


def _key(source: DicomSource, root: Path) -> str | None:
    """The key of the patients' hashes; it goes into no output."""
    if source.subject_key is None:
        return None
    path = root / source.subject_key
    key = path.read_text(encoding="utf-8").strip() if path.is_file() else ""
    if not key:
        raise ParamsError(
            f"ingest.source.subject_key: {path} is missing or empty. Write a secret into it, as "
            "`openssl rand -hex 32` makes one, and keep it out of git."
        )
    return key


def _key_digest(source: DicomSource, root: Path) -> dict[str, str]:
    """A trace of the key, so that another key is another output.

    32 bits tell keys apart and are too few to confirm a guess of a long random one.
    """
    key = _key(source, root)
    return {} if key is None else {"subject_key": sha256(b"vqmri" + key.encode()).hexdigest()[:8]}


def _series_digest(raw: Path, candidate: Candidate) -> str:
    try:
        return dicom.digest(raw, candidate)
    except OSError:
        return "unreadable"


def _idx_files(source: IdxSource) -> dict[str, str]:
    return source.model_dump(exclude={"kind", "covariate"})


def _digest(path: Path) -> str:
    try:
        return sha256_of(path) if path.is_file() else "unreadable"
    except OSError:  # what is no file, as a folder, a pipe or a link to nowhere, is not opened
        return "unreadable"
