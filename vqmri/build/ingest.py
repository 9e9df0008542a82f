"""The source of scans that params name."""

from collections.abc import Callable
from pathlib import Path

from vqmri.outputs import sha256_of
from vqmri.params import IdxSource, ImagesSource, Ingest, NiftiSource
from vqmri.scans import idx, images, modalities, nifti, phantom, raster
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
    names: list[str] = []
    if isinstance(source, NiftiSource):
        names += [candidate.source for candidate in candidates]
        names += [candidate.label for candidate in candidates if candidate.label]
        names += [name for candidate in candidates for name in candidate.modalities if name]
        names += [source.table] if source.table else []
    elif isinstance(source, IdxSource):
        names += _idx_files(source).values()
    elif isinstance(source, ImagesSource):
        names += images.files(raw, candidates)
    return {name: _digest(raw / name) for name in names}


def _idx_files(source: IdxSource) -> dict[str, str]:
    return source.model_dump(exclude={"kind", "covariate"})


def _digest(path: Path) -> str:
    try:
        return sha256_of(path)
    except OSError:  # a link to nowhere, a folder: the reader will refuse it
        return "unreadable"
