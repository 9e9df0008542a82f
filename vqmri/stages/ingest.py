"""raw → volumes: find, check, normalise, split."""

import csv
import json
import math
import os
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

from vqmri.build.ingest import channels, decides, find, inputs, named, recorded, resolved
from vqmri.errors import InputError
from vqmri.layout import Layout
from vqmri.outputs import Identity, Work, is_current, need_space, publishing, replace_file
from vqmri.outputs.digests import FileDigests
from vqmri.outputs.rehearsal import rehearsed
from vqmri.params import Ingest, Params
from vqmri.protocols import Map, Metrics, Tracker
from vqmri.scans.check import PASSING, REFUSALS
from vqmri.scans.outcomes import FOLDER, keys_of
from vqmri.scans.quality import DUPLICATES, REJECTIONS, WARNINGS_TABLE, Quality, assess
from vqmri.scans.split import HELD_OUT, TRAIN, split_subjects, strata_of
from vqmri.scans.store import VolumeWriter, shard_range, volumes_per_shard
from vqmri.scans.table import tsv
from vqmri.scans.volume import Candidate, Record, Rejection
from vqmri.stages.ingest_shard import Shard, ingest_shard, volume_key
from vqmri.stages.workers import processes
from vqmri.terminal import follow, say

FORMAT_VERSION = 6
METRICS = "metrics.json"
_SHOWN = 10  # reasons in an error message
_WORTH_PROCESSES = 2**28  # voxels; to start processes takes as long as to make so many
_MOST_PROCESSES = 8  # each may need a gigabyte
_COMPRESSED_AT_MOST = 8  # times; brains without skull come to 5


def ingest(
    params: Params, data: Layout, *, tracker: Tracker | None = None, each: Map | None = None
) -> Metrics:
    """Publish data/volumes. A scan that cannot be used becomes a row of rejections.tsv.

    A scan that the published volumes already have is taken over; when none has changed, nothing is
    read or written. each: on what the shards run; None for processes of this machine if it pays
    InputError when nothing is found, or when nobody is left to train on or to hold out.
    """
    settings = resolved(params.ingest, data.root)
    if settings is not params.ingest:
        say(f"{data.root / settings.raw} is taken as source kind {settings.source.kind}")
    found = find(settings, params.seed, data.root)
    _names_are_text(found)
    with FileDigests(data.work / "digests.sqlite") as digests:
        raw = inputs(settings, found, data.root, digests)
        deciding = decides(settings, params.seed, data.root, digests)
    made = {
        "seed": params.seed,
        "ingest": recorded(settings, data.root),
        "made_with": {name: deciding[name] for name in ("packages", "programs")},
    }
    identity = Identity("ingest", FORMAT_VERSION, made, raw)
    folder = data.output("volumes")
    candidates = named(settings, found, data.root)
    if settings.subject_key and not rehearsed():
        _keep_names(data.work / "names.tsv", candidates)
    if (metrics := _unchanged(data, identity)) is not None:
        say(f"{folder} is of these scans and params already")
        return metrics
    with publishing(folder, data.work, identity) as work:
        shards = _shards(params, settings, data, work, candidates, raw, deciding)
        need_space(work, _voxels(shards) * 4 // _COMPRESSED_AT_MOST)
        _empty_store(work, shards[0])
        each = each or _on_this_machine(shards)
        outcomes = [
            outcome
            for shard in follow(each(ingest_shard, shards), "ingest", len(shards), "shard")
            for outcome in shard
        ]
        rejections = [outcome.rejection for outcome in outcomes if outcome.rejection]
        records = [outcome.record for outcome in outcomes if outcome.record]
        records = _split(records, rejections, params)
        kinds = channels(settings, data.root)
        VolumeWriter(work.out).finish(records, settings.spacing or (), kinds)
        replace_file(work.out / REJECTIONS, _table(rejections))
        looks = [outcome.look for outcome in outcomes if outcome.look]
        quality = assess(looks, records) if looks else None
        for name, content in (quality.files() if quality else {}).items():
            replace_file(work.out / name, content)
        metrics = _metrics(records, rejections, quality)
        replace_file(work.out / METRICS, (json.dumps(metrics, sort_keys=True) + "\n").encode())
    _tell(len(rejections), quality, folder)
    return metrics


def _names_are_text(candidates: Sequence[Candidate]) -> None:
    """InputError for a file's name that no table or report can hold."""
    for candidate in candidates:
        try:
            candidate.source.encode()
        except UnicodeEncodeError:
            name = candidate.source.encode(errors="backslashreplace").decode()
            raise InputError(f"the name of {name} is no text in UTF-8. Rename it.") from None


def _unchanged(data: Layout, identity: Identity) -> Metrics | None:
    """Metrics of volumes that are what this run would make, and whole."""
    folder = data.output("volumes")
    if not is_current(folder, data.work, identity):
        return None
    with (folder / REJECTIONS).open(newline="", encoding="utf-8") as file:
        if any(row["code"] in PASSING for row in csv.DictReader(file, delimiter="\t")):
            return None
    return json.loads((folder / METRICS).read_text(encoding="utf-8"))


def _shards(
    params: Params,
    settings: Ingest,
    data: Layout,
    work: Work,
    candidates: Sequence[Candidate],
    raw: dict[str, str],
    deciding: dict[str, Any],
) -> list[Shard]:
    scratch = work.state / "scratch"
    number = len(channels(settings, data.root))
    count = len(candidates)
    flat = settings.spacing is None
    earlier = data.output("volumes")
    # pictures are read in less time than it takes to look them up
    known = {} if flat else keys_of(earlier)
    keys = [volume_key(deciding, FORMAT_VERSION, one, raw.get(one.name, "")) for one in candidates]
    size = volumes_per_shard((number, *settings.shape))
    ranges = [shard_range(shard, count, size) for shard in range(-(-count // size))]
    return [
        Shard(
            number=shard,
            candidates=[candidates[i] for i in indices],
            keys=[keys[i] for i in indices],
            known={keys[i]: known[keys[i]] for i in indices if keys[i] in known},
            count=count,
            channels=number,
            params=settings.model_dump(mode="json"),
            seed=params.seed,
            root=str(data.root),
            out=str(work.out),
            outcomes=str(work.state if flat else work.out / FOLDER),
            earlier=str(earlier),
            scratch=str(scratch),
        )
        for shard, indices in enumerate(ranges)
    ]


def _empty_store(work: Work, shard: Shard) -> None:
    """What the shards write to."""
    shutil.rmtree(shard.scratch, ignore_errors=True)  # what a killed run left there
    Path(shard.scratch).mkdir()
    VolumeWriter(work.out).create(shard.count, shard.channels, shard.volume[1:])


def _on_this_machine(shards: Sequence[Shard]) -> Map:
    """Processes, where there is enough to do."""
    number = min(len(os.sched_getaffinity(0)), len(shards), _MOST_PROCESSES)
    return processes(number) if number > 1 and _voxels(shards) >= _WORTH_PROCESSES else map


def _voxels(shards: Sequence[Shard]) -> int:
    """Of all volumes that are not there yet."""
    new = sum(len(set(shard.keys) - set(shard.known)) for shard in shards)
    return new * math.prod(shards[0].volume)


def _metrics(
    records: Sequence[Record], rejections: Sequence[Rejection], quality: Quality | None
) -> Metrics:
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
        say(f"{rejected} scans rejected: see {folder / REJECTIONS}")
    if quality and quality.doubts:
        say(f"{len(quality.doubts)} warnings: see {folder / WARNINGS_TABLE}")
    if quality and quality.leaks:
        say(
            f"{quality.leaks} pairs of scans seem to be one person's, trained on and held out: see "
            f"{folder / DUPLICATES}, and give both the same subject in the table."
        )


def _keep_names(path: Path, candidates: Sequence[Candidate]) -> None:
    """Which scan is which, for those who may know: it is never published."""
    replace_file(path, tsv(["name", "source"], [(one.name, one.source) for one in candidates]))
    say(f"scans and subjects are named by hashes; {path} says which scan is which")


def _split(records: list[Record], rejections: list[Rejection], params: Params) -> list[Record]:
    """Records with their side of the split, the source's own or ours; InputError without two."""
    people = [record.subject for record in records]
    sides = {record.subject: record.split for record in records}
    share = params.ingest.held_out
    if len(sides) > 1 and share is not None:
        strata = strata_of(records, params.ingest.stratify)
        sides = split_subjects(people, held_out=share, seed=params.seed, strata=strata)
    if set(sides.values()) != {TRAIN, HELD_OUT}:
        raise InputError(
            f"{_left(records, rejections)}; scans of at least two subjects are needed, one to "
            f"train on and one to hold out. Add scans{_remedies(records, rejections)}"
        )
    _covariates_are_there(records)
    return [replace(record, split=sides[record.subject]) for record in records]


def _left(records: list[Record], rejections: list[Rejection]) -> str:
    """What there is, where that is too little."""
    rejected = f"{len(rejections)} of {len(records) + len(rejections)} scans were rejected"
    people = {record.subject for record in records}
    if len(people) != 1:
        return rejected
    those = f"those left ({len(records)})" if rejections else f"all {len(records)} scans"
    alone = f"{those} are of one subject, {min(people)!r}"
    return f"{rejected}, and {alone}" if rejections else alone


def _remedies(records: list[Record], rejections: list[Rejection]) -> str:
    """What else than adding scans may help."""
    table = ""
    if len(records) > 1 and len({record.subject for record in records}) == 1:
        table = ", or name a table that says whose each is (ingest.source.table, of kind nifti)"
    if not rejections:
        return f"{table}."
    counts = Counter(rejection.code for rejection in rejections)
    reasons = [f"  {r.source}: {r.code}: {r.reason}" for r in rejections[:_SHOWN]]
    codes = [f"  {code} ({n}): {REFUSALS[code]}" for code, n in sorted(counts.items())]
    return f"{table}, or mend these:\n" + "\n".join(reasons + codes)


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
