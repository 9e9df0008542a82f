"""What a person should know of a data set before a model is trained on it.

Three tables beside the volumes: `warnings.tsv`, odd scans that were accepted; `duplicates.tsv`,
pairs of scans that are one or seem to be; `dataset.json`, what the data set is. Pictures have none.
"""

import json
from collections.abc import Sequence
from dataclasses import astuple, dataclass, field
from typing import Any

from vqmri.scans.dataset import Summary, describe, summarise
from vqmri.scans.doubts import Doubt, doubts_of_dataset, doubts_of_scan
from vqmri.scans.leakage import Fingerprint, Pair, fingerprint, near_duplicates
from vqmri.scans.table import tsv
from vqmri.scans.volume import Record, Volume
from vqmri.shapes import Box

REJECTIONS = "rejections.tsv"
WARNINGS_TABLE, DUPLICATES, DATASET = "warnings.tsv", "duplicates.tsv", "dataset.json"


@dataclass(frozen=True)
class Look:
    """What is kept of one scan for the tables."""

    source: str
    fingerprint: Fingerprint
    summary: Summary
    doubts: list[Doubt] = field(default_factory=list)


def look(source: str, scan: Volume, volume: Volume, box: Box) -> Look | None:
    """At a scan as it was read, its normalised volume and field of view; None at a picture."""
    if scan.affine is None:
        return None
    summary = summarise(scan, volume, box)
    doubts = doubts_of_scan(source, scan, summary)
    return Look(source, fingerprint(scan, volume, box), summary, doubts)


@dataclass(frozen=True)
class Quality:
    """Of a whole data set."""

    doubts: list[Doubt]
    pairs: list[Pair]
    dataset: dict[str, Any]

    @property
    def leaks(self) -> int:
        """Pairs of which one is trained on and the other is held out."""
        return sum(pair.leaks for pair in self.pairs)

    def files(self) -> dict[str, bytes]:
        """Name to content of the tables."""
        pairs = [astuple(pair) for pair in self.pairs]
        return {
            WARNINGS_TABLE: tsv(["source", "code", "reason"], map(astuple, self.doubts)),
            DUPLICATES: tsv(["first", "second", "kind", "correlation", "leaks"], pairs),
            DATASET: (json.dumps(self.dataset, indent=1) + "\n").encode(),
        }


def assess(looks: Sequence[Look], records: Sequence[Record]) -> Quality:
    """What the looks at a data set's scans, one per record, amount to."""
    summaries = {one.source: one.summary for one in looks}
    fingerprints = {one.source: one.fingerprint for one in looks}
    subjects = {record.source: record.subject for record in records}
    splits = {record.source: record.split for record in records}
    alone = [doubt for one in looks for doubt in one.doubts]
    return Quality(
        doubts=sorted(alone + doubts_of_dataset(summaries, fingerprints), key=astuple),
        pairs=near_duplicates(fingerprints, subjects, splits),
        dataset=describe(records, summaries),
    )
