"""The source of scans that params name, and what is done to each."""

import shutil
from collections.abc import Callable, Sequence
from hashlib import sha256
from importlib.metadata import version
from json import dumps
from pathlib import Path
from typing import Any

from vqmri.errors import ParamsError
from vqmri.outputs.digests import FileDigests
from vqmri.params import (
    AutoSource,
    BidsSource,
    DicomSource,
    IdxSource,
    ImagesSource,
    Ingest,
    NiftiSource,
    PhantomSource,
)
from vqmri.scans import bids_dataset, dicom, idx, images, modalities, nifti, phantom, raster
from vqmri.scans.check import Refused
from vqmri.scans.kinds import check_plain, kind_of
from vqmri.scans.normalise import normalise
from vqmri.scans.prepare import prepare
from vqmri.scans.pseudonym import label, renamed
from vqmri.scans.volume import Candidate, Channel, Normalised, Steps, Volume

Reader = Callable[[Candidate], tuple[Volume, str]]
Preparer = Callable[[Volume], tuple[Volume, Steps]]
Normaliser = Callable[[Volume], Normalised]

EVERY_IMAGE = "**/*"
_MAKE_VOLUMES = ("dcm2niix", "monai", "nibabel", "numpy", "pydicom", "scipy", "simpleitk", "torch")
_FINDS = {
    "images", "table", "file_column", "subject_column", "covariates", "count", "description",
    "suffix", "session", "acquisition",
}  # fmt: skip
"""Options of sources that choose and describe scans, and do not change what is read of one."""


def resolved(params: Ingest, root: Path) -> Ingest:
    """The same with the source that `raw` turns out to be; InputError when it is unclear."""
    if not isinstance(params.source, AutoSource):
        return params
    source = {
        "bids": BidsSource(kind="bids"),
        "nifti": NiftiSource(kind="nifti", images=EVERY_IMAGE),
        "dicom": DicomSource(kind="dicom"),
    }[kind_of(root / params.raw)]
    if isinstance(source, NiftiSource):
        check_plain(root / params.raw, [c.source for c in _nifti(root / params.raw, source)])
    return params.model_copy(update={"source": source})


def find(params: Ingest, seed: int, root: Path) -> list[Candidate]:
    """All scans of the source, unread."""
    source, raw = params.source, root / params.raw
    if isinstance(source, NiftiSource):
        return _nifti(raw, source)
    if isinstance(source, BidsSource):
        return bids_dataset.find(
            raw,
            suffix=source.suffix,
            sessions=source.session,
            acquisitions=source.acquisition,
            covariates=source.covariates,
        )
    if isinstance(source, DicomSource):
        key = subject_key(params, root)
        return dicom.find(raw, subject_key=key, **source.model_dump(exclude={"kind"}))
    if isinstance(source, IdxSource):
        return idx.find(raw, files=_idx_files(source), covariate=source.covariate)
    if isinstance(source, ImagesSource):
        return images.find(raw, **source.model_dump(exclude={"kind", "channels"}))
    assert isinstance(source, PhantomSource)
    return phantom.find(count=source.count, seed=seed)


def _nifti(raw: Path, source: NiftiSource) -> list[Candidate]:
    return nifti.find(raw, **source.model_dump(exclude={"kind", "label_values"}))


def named(params: Ingest, candidates: list[Candidate], root: Path) -> list[Candidate]:
    """As outputs may name them: with a key, by hashes."""
    key = subject_key(params, root)
    if key is None:
        return candidates
    return renamed(candidates, key, people=not isinstance(params.source, DicomSource))


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


def reader(params: Ingest, seed: int, root: Path, scratch: Path | None = None) -> Reader:
    """How a candidate becomes a volume with its sha256; the reader raises Refused.

    scratch: folder for copies that are needed for a while
    """
    source, raw = params.source, root / params.raw
    if isinstance(source, NiftiSource):
        names, values = list(source.modalities), source.label_values
        return lambda candidate: modalities.read(raw, candidate, names=names, label_values=values)
    if isinstance(source, BidsSource):
        return lambda candidate: bids_dataset.read(raw, candidate)
    if isinstance(source, DicomSource):
        return lambda candidate: dicom.read(raw, candidate, scratch=scratch)
    if isinstance(source, IdxSource):
        files = _idx_files(source)
        return lambda candidate: idx.read(raw, candidate, files=files)
    if isinstance(source, ImagesSource):
        number = source.channels
        return lambda candidate: images.read(raw, candidate, channels=number)
    assert isinstance(source, PhantomSource)
    spacing = source.spacing
    return lambda candidate: phantom.read(candidate, seed=seed, spacing=spacing)


def preparer(params: Ingest, root: Path, scratch: Path | None = None) -> Preparer:
    """What is done to a scan on its own grid; it raises Refused."""
    deface, mask = (_command(words, root) for words in (params.deface, params.brain_mask))
    return lambda scan: prepare(
        scan,
        deface_by=deface,
        mask_by=mask,
        bias_correction=params.bias_correction,
        scratch=scratch,
    )


def _command(words: list[str] | None, root: Path) -> list[str]:
    """Files of the project by their whole paths, for a command runs elsewhere."""
    return [
        str(root.absolute() / word) if "/" in word and (root / word).is_file() else word
        for word in words or []
    ]


def normaliser(params: Ingest) -> Normaliser:
    """How a volume comes to have the shape and the scale of all; it raises Refused."""
    shape, spacing, percentiles = params.shape, params.spacing, params.percentiles
    if spacing is None or percentiles is None:
        return lambda scan: raster.fit(scan, shape)
    return lambda scan: normalise(
        scan,
        spacing=spacing,
        shape=shape,
        percentiles=percentiles,
        foreground_crop=params.foreground_crop,
        skull_strip=params.skull_strip,
    )


def inputs(
    params: Ingest, candidates: list[Candidate], root: Path, digests: FileDigests
) -> dict[str, str]:
    """Name to digest of everything raw that the volumes depend on.

    Of a scan the key is the candidate's name. Only files that changed since the last time are read.
    """
    source, raw = params.source, root / params.raw
    found = _key_trace(params, root)
    if isinstance(source, IdxSource | ImagesSource):
        idx_files = list(_idx_files(source).values()) if isinstance(source, IdxSource) else []
        names = idx_files or images.files(raw, candidates)
        if params.subject_key:
            return found | {"pictures": _joined([digests.of(raw / name) for name in names])}
        return found | {name: digests.of(raw / name) for name in names}
    if isinstance(source, PhantomSource):
        return found
    tables: list[str] = []
    if isinstance(source, BidsSource):
        tables += bids_dataset.tables(raw, candidates) if source.covariates else []
    elif isinstance(source, NiftiSource):
        tables += [source.table] if source.table else []
    if tables:
        found["tables"] = _joined([digests.of(raw / name) for name in tables])
    every = {one.name: _files(raw, one) for one in named(params, candidates, root)}
    places = {name: _place(raw, name) for names in every.values() for name in names}
    inside = [place for place in places.values() if isinstance(place, Path)]
    known: dict[Path | str, str] = dict(zip(inside, digests.of_all(inside), strict=True))
    for scan, names in every.items():
        found[scan] = _joined([known.get(places[name], str(places[name])) for name in names])
    return found


def recorded(params: Ingest, root: Path) -> dict[str, Any]:
    """The params as an output may tell them: with a key, without what may name a person."""
    values = params.model_dump(mode="json", exclude={"raw", "subject_key"})
    key = subject_key(params, root)
    if key is not None:
        told = {name: value for name, value in values["source"].items() if name not in _FINDS}
        whole = label(dumps(values["source"], sort_keys=True), key)
        values["source"] = told | {"digest": whole, "masks": bool(told.get("masks"))}
    return values


def decides(params: Ingest, seed: int, root: Path, digests: FileDigests) -> dict[str, Any]:
    """The values that decide what one scan becomes, whichever other scans there are."""
    source = params.source
    values = params.model_dump(
        mode="json", exclude={"raw", "source", "subject_key", "held_out", "stratify"}
    )
    values["source"] = source.model_dump(mode="json", exclude=_FINDS)
    values["seed"] = seed if isinstance(source, PhantomSource) else None
    values["programs"] = _programs(params, root, digests)
    values["packages"] = {name: version(name) for name in _MAKE_VOLUMES}
    return values


def _programs(params: Ingest, root: Path, digests: FileDigests) -> list[str]:
    """Digests of the commands' programs and files: other ones may do other things."""
    words = [*_command(params.deface, root), *_command(params.brain_mask, root)]
    paths = [Path(shutil.which(word) or word) for word in words]
    return [digests.of(path) for path in paths if path.is_absolute()]


def _place(raw: Path, name: str) -> Path | str:
    """A file, or the code of its refusal: a link may come to lead outside, its content the same."""
    try:
        return nifti.locate(raw, name)
    except Refused as refusal:
        return refusal.code


def subject_key(params: Ingest, root: Path) -> str | None:
    """The key of the hashes that name people; it goes into no output. ParamsError without one."""
    if params.subject_key is None:
        return None
    path = root / params.subject_key
    key = path.read_bytes().strip().decode("latin-1") if path.is_file() else ""
    if not key:
        raise ParamsError(
            f"ingest.subject_key: {path} is missing or empty. Write a secret into it, as "
            "`openssl rand -hex 32` makes one, and keep it out of git."
        )
    return key


def _key_trace(params: Ingest, root: Path) -> dict[str, str]:
    """A trace of the key, so that another key is another output.

    32 bits tell keys apart and are too few to confirm a guess of a long random one.
    """
    key = subject_key(params, root)
    return {} if key is None else {"subject_key": sha256(b"vqmri" + key.encode()).hexdigest()[:8]}


def _files(raw: Path, candidate: Candidate) -> list[str]:
    """What a volume is read from, relative to `raw`; nothing for a phantom."""
    if candidate.files:
        return list(candidate.files)
    others = (candidate.label, candidate.mask, *candidate.modalities)
    return nifti.files(raw, [candidate.source, *(name for name in others if name)])


def _joined(digests: Sequence[str]) -> str:
    return digests[0] if len(digests) == 1 else sha256("\n".join(digests).encode()).hexdigest()


def _idx_files(source: IdxSource) -> dict[str, str]:
    return source.model_dump(exclude={"kind", "covariate"})
