"""raw → volumes: find, check, normalise, split."""

import csv
import io
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from vqmri.build.ingest import Reader, digests, find, reader
from vqmri.errors import InputError
from vqmri.layout import Layout
from vqmri.outputs import Identity, publishing, replace_file
from vqmri.params import Ingest, Params
from vqmri.protocols import Map, Metrics, Tracker
from vqmri.scans.check import REFUSALS, Refused
from vqmri.scans.normalise import normalise
from vqmri.scans.split import HELD_OUT, TRAIN, split_subjects
from vqmri.scans.store import VOLUMES_PER_SHARD, VolumeWriter, shard_range
from vqmri.scans.volume import Candidate, Record, Rejection
from vqmri.tracking.tracker import NullTracker

FORMAT_VERSION = 1
REJECTIONS = "rejections.tsv"
_SHOWN = 10  # reasons in an error message


@dataclass(frozen=True)
class Shard:
    """One unit of work, in plain values: the scans of one shard of the store."""

    number: int
    candidates: Sequence[Candidate]
    count: int
    params: dict[str, Any]
    seed: int
    root: str
    out: str
    state: str


def ingest(
    params: Params, data: Layout, *, tracker: Tracker | None = None, each: Map = map
) -> Metrics:
    """Publish data/volumes. A scan that cannot be used becomes a row of rejections.tsv.

    InputError when nothing is found or fewer than two subjects are left.
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
        writer = VolumeWriter(work.out)
        writer.create(len(candidates), 1, settings.shape)
        numbers = range(-(-len(candidates) // VOLUMES_PER_SHARD))
        shards = [
            Shard(
                number=number,
                candidates=[candidates[i] for i in shard_range(number, len(candidates))],
                count=len(candidates),
                params=settings.model_dump(mode="json"),
                seed=params.seed,
                root=str(data.root),
                out=str(work.out),
                state=str(work.state),
            )
            for number in numbers
        ]
        done = list(tqdm(each(ingest_shard, shards), "ingest", len(shards), unit="shard"))
        records = [record for accepted, _ in done for record in accepted]
        rejections = [rejection for _, refused in done for rejection in refused]
        records = _split(records, rejections, params)
        writer.finish(records, settings.spacing)
        replace_file(work.out / REJECTIONS, _table(rejections))
    if rejections:
        tqdm.write(f"{len(rejections)} scans rejected: see {data.output('volumes') / REJECTIONS}")
    return {
        "volumes": len(records),
        "rejected": len(rejections),
        "train_volumes": sum(record.split == TRAIN for record in records),
        "held_out_volumes": sum(record.split == HELD_OUT for record in records),
    }


def ingest_shard(shard: Shard) -> tuple[list[Record], list[Rejection]]:
    """Read, check, normalise and write the scans of one shard, unless a killed run already did."""
    marker = Path(shard.state) / f"shard-{shard.number:05d}.json"
    if marker.is_file():
        done = json.loads(marker.read_text(encoding="utf-8"))
        return [Record(**row) for row in done[0]], [Rejection(**row) for row in done[1]]
    settings = Ingest.model_validate(shard.params)
    read = reader(settings, shard.seed, Path(shard.root))
    indices = shard_range(shard.number, shard.count)
    block = np.full((len(indices), 1, *settings.shape), np.nan, dtype=np.float32)
    records: list[Record] = []
    rejections: list[Rejection] = []
    for slot, (index, candidate) in enumerate(zip(indices, shard.candidates, strict=True)):
        try:
            block[slot], record = _one(candidate, index, read, settings)
        except Refused as refusal:
            rejections.append(Rejection(candidate.source, refusal.code, refusal.reason))
        else:
            records.append(record)
    VolumeWriter(Path(shard.out)).write_shard(shard.number, block)
    rows = [[asdict(record) for record in records], [asdict(r) for r in rejections]]
    replace_file(marker, json.dumps(rows).encode())
    return records, rejections


def _one(
    candidate: Candidate, index: int, read: Reader, settings: Ingest
) -> tuple[np.ndarray, Record]:
    """The normalised voxels of one scan and its row of the table, still without its split."""
    scan, sha256 = read(candidate)
    volume, box = normalise(
        scan,
        spacing=settings.spacing,
        shape=settings.shape,
        percentiles=settings.percentiles,
    )
    if not np.isfinite(volume.data).all():
        raise Refused("not-finite", "intensities are beyond what float32 can scale")
    if volume.data.min() == volume.data.max():
        raise Refused("constant", "every voxel is the same after intensity scaling")
    return volume.data, Record(
        index=index,
        subject=candidate.subject,
        source=candidate.source,
        sha256=sha256,
        shape=list(scan.data.shape[1:]),
        affine=scan.affine.tolist(),
        normalised_affine=volume.affine.tolist(),
        field_of_view=[list(pair) for pair in box],
        covariates=candidate.covariates,
        label=candidate.label,
        split="",
    )


def _split(records: list[Record], rejections: list[Rejection], params: Params) -> list[Record]:
    """Records with their side of the split; InputError when no split can be made."""
    people = [record.subject for record in records]
    if len(set(people)) < 2:
        counts = Counter(rejection.code for rejection in rejections)
        reasons = [f"  {r.source}: {r.code}: {r.reason}" for r in rejections[:_SHOWN]]
        codes = [f"  {code} ({n}): {REFUSALS[code]}" for code, n in sorted(counts.items())]
        raise InputError(
            f"{len(rejections)} of {len(records) + len(rejections)} scans were rejected; scans of "
            "at least two subjects are needed.\n" + "\n".join(reasons + codes)
        )
    sides = split_subjects(people, held_out=params.ingest.held_out, seed=params.seed)
    return [replace(record, split=sides[record.subject]) for record in records]


def _table(rejections: list[Rejection]) -> bytes:
    text = io.StringIO()
    rows = csv.writer(text, delimiter="\t", lineterminator="\n")
    rows.writerow(["source", "code", "reason"])
    rows.writerows([r.source, r.code, r.reason.replace("\n", " ")] for r in rejections)
    return text.getvalue().encode()
