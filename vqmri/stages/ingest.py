"""raw → volumes: find, check, normalise, split."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from vqmri.build.ingest import Normaliser, Reader, channels, digests, find, normaliser, reader
from vqmri.errors import InputError
from vqmri.layout import Layout
from vqmri.outputs import Identity, Work, publishing, replace_file
from vqmri.params import Ingest, Params
from vqmri.protocols import Map, Metrics, Tracker
from vqmri.scans.check import REFUSALS, Refused
from vqmri.scans.quality import DUPLICATES, WARNINGS_TABLE, Look, Quality, assess, look
from vqmri.scans.split import HELD_OUT, TRAIN, split_subjects, strata_of
from vqmri.scans.store import VolumeWriter, shard_range, volumes_per_shard
from vqmri.scans.table import tsv
from vqmri.scans.volume import Candidate, Channel, Record, Rejection
from vqmri.tracking.tracker import NullTracker

FORMAT_VERSION = 3
REJECTIONS = "rejections.tsv"
_SHOWN = 10  # reasons in an error message


@dataclass(frozen=True)
class Done:
    """What came of one shard."""

    records: list[Record]
    rejections: list[Rejection]
    looks: list[Look]

    @classmethod
    def of_json(cls, values: dict[str, Any]) -> "Done":
        """The inverse of `dataclasses.asdict`."""
        return cls(
            [Record(**row) for row in values["records"]],
            [Rejection(**row) for row in values["rejections"]],
            [Look.of_json(row) for row in values["looks"]],
        )


@dataclass(frozen=True)
class Shard:
    """One unit of work, in plain values: the scans of one shard of the store."""

    number: int
    candidates: Sequence[Candidate]
    count: int
    channels: int
    params: dict[str, Any]
    seed: int
    root: str
    out: str
    state: str


def ingest(
    params: Params, data: Layout, *, tracker: Tracker | None = None, each: Map = map
) -> Metrics:
    """Publish data/volumes. A scan that cannot be used becomes a row of rejections.tsv.

    InputError when nothing is found, or when nobody is left to train on or to hold out.
    """
    tracker = tracker or NullTracker()
    settings = params.ingest
    candidates = find(settings, params.seed, data.root)
    identity = Identity(
        "ingest",
        FORMAT_VERSION,
        {"seed": params.seed, "ingest": settings.model_dump(mode="json", exclude={"raw"})},
        digests(settings, candidates, data.root),
    )
    with publishing(data.output("volumes"), data.work, identity) as work:
        kinds = channels(settings, data.root)
        writer = VolumeWriter(work.out)
        writer.create(len(candidates), len(kinds), settings.shape)
        shards = _shards(params, data, work, candidates, kinds)
        done = list(tqdm(each(ingest_shard, shards), "ingest", len(shards), unit="shard"))
        records = [record for shard in done for record in shard.records]
        rejections = [rejection for shard in done for rejection in shard.rejections]
        looks = [one for shard in done for one in shard.looks]
        records = _split(records, rejections, params)
        writer.finish(records, settings.spacing or (), kinds)
        replace_file(work.out / REJECTIONS, _table(rejections))
        quality = assess(looks, records) if looks else None
        for name, content in (quality.files() if quality else {}).items():
            replace_file(work.out / name, content)
    _tell(len(rejections), quality, data.output("volumes"))
    return {
        **({"warnings": len(quality.doubts), "leaks": quality.leaks} if quality else {}),
        "volumes": len(records),
        "rejected": len(rejections),
        "train_volumes": sum(record.split == TRAIN for record in records),
        "held_out_volumes": sum(record.split == HELD_OUT for record in records),
    }


def _tell(rejected: int, quality: Quality | None, folder: Path) -> None:
    """Say what a person should look at."""
    if rejected:
        tqdm.write(f"{rejected} scans rejected: see {folder / REJECTIONS}")
    if quality and quality.doubts:
        tqdm.write(f"{len(quality.doubts)} warnings: see {folder / WARNINGS_TABLE}")
    if quality and quality.leaks:
        tqdm.write(
            f"{quality.leaks} pairs of scans seem to be one person's, trained on and held out: see "
            f"{folder / DUPLICATES}, and give both the same subject in the table."
        )


def _shards(
    params: Params,
    data: Layout,
    work: Work,
    candidates: Sequence[Candidate],
    kinds: Sequence[Channel],
) -> list[Shard]:
    size = volumes_per_shard((len(kinds), *params.ingest.shape))
    count = len(candidates)
    return [
        Shard(
            number=number,
            candidates=[candidates[i] for i in shard_range(number, count, size)],
            count=count,
            channels=len(kinds),
            params=params.ingest.model_dump(mode="json"),
            seed=params.seed,
            root=str(data.root),
            out=str(work.out),
            state=str(work.state),
        )
        for number in range(-(-count // size))
    ]


def ingest_shard(shard: Shard) -> Done:
    """Read, check, normalise and write the scans of one shard, unless a killed run already did."""
    marker = Path(shard.state) / f"shard-{shard.number:05d}.json"
    if marker.is_file():
        return Done.of_json(json.loads(marker.read_text(encoding="utf-8")))
    settings = Ingest.model_validate(shard.params)
    read = reader(settings, shard.seed, Path(shard.root))
    prepare = normaliser(settings)
    volume = (shard.channels, *settings.shape)
    indices = shard_range(shard.number, shard.count, volumes_per_shard(volume))
    block = np.full((len(indices), *volume), np.nan, dtype=np.float32)
    done = Done([], [], [])
    for slot, (index, candidate) in enumerate(zip(indices, shard.candidates, strict=True)):
        try:
            block[slot], record, seen = _one(candidate, index, read, prepare)
        except Refused as refusal:
            done.rejections.append(Rejection(candidate.source, refusal.code, refusal.reason))
        else:
            done.records.append(record)
            done.looks.extend([seen] if seen else [])
    VolumeWriter(Path(shard.out)).write_shard(shard.number, block)
    replace_file(marker, json.dumps(asdict(done)).encode())
    return done


def _one(
    candidate: Candidate, index: int, read: Reader, prepare: Normaliser
) -> tuple[np.ndarray, Record, Look | None]:
    """The normalised voxels of one scan, its row of the table, and a look at it."""
    scan, sha256 = read(candidate)
    volume, box = prepare(scan)
    record = Record(
        index=index,
        subject=candidate.subject,
        source=candidate.source,
        sha256=sha256,
        shape=list(scan.data.shape[1:]),
        affine=_rows(scan.affine),
        normalised_affine=_rows(volume.affine),
        field_of_view=[list(pair) for pair in box],
        covariates=candidate.covariates,
        label=candidate.label,
        split=candidate.split,
    )
    return volume.channels, record, look(candidate.source, scan, volume, box)


def _rows(affine: np.ndarray | None) -> list[list[float]]:
    return [] if affine is None else affine.tolist()


def _split(records: list[Record], rejections: list[Rejection], params: Params) -> list[Record]:
    """Records with their side of the split, the source's own or ours; InputError without two."""
    people = [record.subject for record in records]
    sides = {record.subject: record.split for record in records}
    share = params.ingest.held_out
    if len(sides) > 1 and share is not None:
        strata = strata_of(records, params.ingest.stratify)
        sides = split_subjects(people, held_out=share, seed=params.seed, strata=strata)
    if set(sides.values()) != {TRAIN, HELD_OUT}:
        counts = Counter(rejection.code for rejection in rejections)
        reasons = [f"  {r.source}: {r.code}: {r.reason}" for r in rejections[:_SHOWN]]
        codes = [f"  {code} ({n}): {REFUSALS[code]}" for code, n in sorted(counts.items())]
        raise InputError(
            f"{len(rejections)} of {len(records) + len(rejections)} scans were rejected; scans of "
            "at least two subjects are needed, one to train on and one to hold out.\n"
            + "\n".join(reasons + codes)
        )
    _covariates_are_there(records)
    return [replace(record, split=sides[record.subject]) for record in records]


def _covariates_are_there(records: list[Record]) -> None:
    """A column without a single value is found here, before any training is conditioned on it."""
    for name in dict.fromkeys(name for record in records for name in record.covariates):
        if all(record.covariates.get(name) is None for record in records):
            raise InputError(
                f"ingest.source.covariates: {name!r} is empty for all {len(records)} scans. "
                "Fill it in, in the table, or take it out."
            )


def _table(rejections: list[Rejection]) -> bytes:
    return tsv(["source", "code", "reason"], [astuple(r) for r in rejections])
