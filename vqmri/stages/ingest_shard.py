"""One shard of ingest: the unit of work, whoever does it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import sha256
from json import dumps
from pathlib import Path
from typing import Any

import numpy as np

from vqmri.build.ingest import normaliser, preparer, reader
from vqmri.errors import IntegrityError
from vqmri.params import Ingest
from vqmri.scans import outcomes
from vqmri.scans.check import Refused
from vqmri.scans.outcomes import Earlier, Outcome, earlier
from vqmri.scans.quality import look
from vqmri.scans.store import VolumeWriter, shard_range, volumes_per_shard
from vqmri.scans.volume import Candidate, Record, Rejection
from vqmri.training.memory import keep_memory


@dataclass(frozen=True)
class Shard:
    """The scans of one shard of the store, in plain values.

    keys: of the candidates, see `Outcome`; known: key to index of volumes in the folder `earlier`
    outcomes: folder of what came of the scans; scratch: for what must not outlive the run
    """

    number: int
    candidates: Sequence[Candidate]
    keys: Sequence[str]
    known: Mapping[str, int]
    count: int
    channels: int
    params: dict[str, Any]
    seed: int
    root: str
    out: str
    outcomes: str
    earlier: str
    scratch: str

    @property
    def volume(self) -> tuple[int, ...]:
        """Shape of one volume, channels first."""
        return (self.channels, *self.params["shape"])

    @property
    def indices(self) -> range:
        """Of its volumes in the store."""
        return shard_range(self.number, self.count, volumes_per_shard(self.volume))


def volume_key(decides: Mapping[str, Any], version: int, candidate: Candidate, digest: str) -> str:
    """What a candidate's volume is known by."""
    return sha256(dumps([version, decides, candidate.name, digest]).encode()).hexdigest()


def ingest_shard(shard: Shard) -> list[Outcome]:
    """Read, check, normalise and write the scans of one shard, unless a killed run already did."""
    keep_memory()
    folder = Path(shard.outcomes)
    found = outcomes.read(folder, shard.number)
    if found is not None and not any(one.may_pass for one in found):
        return found
    worker = _Worker(shard)
    block = np.full((len(shard.indices), *shard.volume), np.nan, dtype=np.float32)
    found = []
    for slot, (index, candidate, its_key) in enumerate(
        zip(shard.indices, shard.candidates, shard.keys, strict=True)
    ):
        try:
            block[slot], outcome = worker.outcome(candidate, index, its_key)
        except Refused as refusal:
            rejection = Rejection(candidate.name, refusal.code, refusal.reason)
            outcome = Outcome(its_key, rejection=rejection)
        found.append(outcome)
    VolumeWriter(Path(shard.out)).write_shard(shard.number, block)
    outcomes.write(folder, shard.number, found)
    return found


class _Worker:
    """Takes a volume over or makes it."""

    def __init__(self, shard: Shard) -> None:
        settings = Ingest.model_validate(shard.params)
        root, scratch = Path(shard.root), Path(shard.scratch)
        self._shard = shard
        self._read = reader(settings, shard.seed, root, scratch)
        self._prepare = preparer(settings, root, scratch)
        self._normalise = normaliser(settings)

    def outcome(self, candidate: Candidate, index: int, its_key: str) -> tuple[np.ndarray, Outcome]:
        """The voxels, channels first, and what came of the scan; raises Refused."""
        if its_key in self._shard.known:
            try:
                return self._taken(candidate, index, its_key)
            except (IntegrityError, OSError):
                pass  # what is damaged is made again
        return self._made(candidate, index, its_key)

    def _taken(self, candidate: Candidate, index: int, its_key: str) -> tuple[np.ndarray, Outcome]:
        volume, record, seen = self._earlier.take(self._shard.known[its_key])
        return volume, Outcome(its_key, replace(record, **_known(candidate, index)), seen)

    def _made(self, candidate: Candidate, index: int, its_key: str) -> tuple[np.ndarray, Outcome]:
        scan, digest = self._read(candidate)
        prepared, steps = self._prepare(scan)
        done = self._normalise(prepared)
        record = Record(
            sha256=digest,
            shape=list(scan.data.shape[1:]),
            affine=_rows(scan.affine),
            normalised_affine=_rows(done.volume.affine),
            field_of_view=[list(pair) for pair in done.box],
            steps=steps + done.steps,
            **_known(candidate, index),
        )
        seen = look(candidate.name, scan, done.volume, done.box)
        return done.volume.channels, Outcome(its_key, record, seen)

    @cached_property
    def _earlier(self) -> Earlier:
        return earlier(Path(self._shard.earlier))


def _known(candidate: Candidate, index: int) -> dict[str, Any]:
    """The part of a record that is known of a scan without reading it."""
    return {
        "index": index,
        "subject": candidate.subject,
        "source": candidate.name,
        "covariates": candidate.covariates,
        "label": None if candidate.alias else candidate.label,
        "split": candidate.split,
    }


def _rows(affine: np.ndarray | None) -> list[list[float]]:
    return [] if affine is None else affine.tolist()
