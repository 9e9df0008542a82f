"""The first sections of the report: what the data set is, and what is odd about it."""

import csv
import io
import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from vqmri.evaluation import contact_sheet as sheet
from vqmri.evaluation.report import Section
from vqmri.outputs import Manifest
from vqmri.scans.check import REFUSALS
from vqmri.scans.doubts import WARNINGS
from vqmri.scans.quality import DATASET, DUPLICATES, REJECTIONS, WARNINGS_TABLE
from vqmri.scans.split import HELD_OUT, TRAIN
from vqmri.scans.store import VolumeStore
from vqmri.scans.volume import Record, crop

MOST_TILES = 400
MOST_ROWS = 50
MOST_VOLUMES = 64
"""Of each side of the split, for the histograms."""

_MOST_VALUES = 8  # of a covariate that are named
_SIDES = {TRAIN: ("train", sheet.TRAIN_COLOUR), HELD_OUT: ("held out", sheet.HELD_OUT_COLOUR)}
_Row = Mapping[str, str]
_Item = TypeVar("_Item")


@dataclass(frozen=True)
class Tables:
    """What stands beside published volumes.

    warnings, duplicates, dataset: None of pictures, which have none
    """

    rejections: list[_Row]
    warnings: list[_Row] | None
    duplicates: list[_Row] | None
    dataset: Mapping[str, Any] | None

    @property
    def doubtful(self) -> set[str]:
        """Sources that have a warning, or a copy on the other side of the split."""
        leaking = [row for row in self.duplicates or [] if _leaks(row)]
        pairs = {row[name] for row in leaking for name in ("first", "second")}
        return pairs | {row["source"] for row in self.warnings or []}


def read_tables(folder: Path) -> Tables:
    """Of published volumes; IntegrityError when one is damaged."""
    manifest = Manifest.read(folder)
    there = [name for name in (WARNINGS_TABLE, DUPLICATES, DATASET) if name in manifest.items]
    manifest.check(folder, [REJECTIONS, *there])

    def rows(name: str) -> list[_Row]:
        text = (folder / name).read_text(encoding="utf-8")
        return list(csv.DictReader(io.StringIO(text, newline=""), delimiter="\t"))

    return Tables(
        rejections=rows(REJECTIONS),
        warnings=rows(WARNINGS_TABLE) if WARNINGS_TABLE in there else None,
        duplicates=rows(DUPLICATES) if DUPLICATES in there else None,
        dataset=json.loads((folder / DATASET).read_bytes()) if DATASET in there else None,
    )


def data_sections(folder: Path, store: VolumeStore) -> list[Section]:
    """Of the volumes published in `folder`; `store` is the same, opened."""
    tables = read_tables(folder)
    chosen = choose(store.records, tables.doubtful, MOST_TILES)
    columns = sheet.num_columns(len(chosen))
    places = {
        record.source: f"{number // columns + 1}·{number % columns + 1}"
        for number, record in enumerate(chosen)
    }
    sections = [
        Section(
            "Data",
            "The scans as the models see them: normalised, and resampled to one grid. What is "
            "wrong here is wrong in all that follows.",
            _summary(tables.dataset) if tables.dataset else (),
            _pictures(store, tables, chosen),
            page="Data",
        )
    ]
    if tables.warnings is not None:
        sections.append(_warnings(tables.warnings, places))
    if tables.duplicates is not None:
        sections.append(_duplicates(tables.duplicates, places))
    return [*sections, _rejections(tables.rejections, len(store.records))]


def choose(records: Sequence[Record], doubtful: Collection[str], most: int) -> list[Record]:
    """At most `most` records by their source: the doubtful ones first, the others evenly."""
    ordered = sorted(records, key=lambda record: record.source)
    odd = evenly([r for r in ordered if r.source in doubtful], most)
    others = evenly([r for r in ordered if r.source not in doubtful], most - len(odd))
    return sorted(odd + others, key=lambda record: record.source)


def evenly(items: Sequence[_Item], most: int) -> list[_Item]:
    """All, or `most` of them from the first to the last."""
    if len(items) <= most:
        return list(items)
    return [items[int(i)] for i in np.linspace(0, len(items) - 1, most)]


def _pictures(
    store: VolumeStore, tables: Tables, chosen: Sequence[Record]
) -> list[tuple[str, bytes]]:
    """The contact sheet and the histograms; each volume is read once."""
    sides = {side: evenly(store.of_split(side), MOST_VOLUMES) for side in _SIDES}
    counted = {record.index for side in sides.values() for record in side}
    both = {record.index: record for group in (chosen, *sides.values()) for record in group}
    planes, measured = {}, {}
    for index, record in sorted(both.items()):  # one by one, as a volume may be large
        volume = store.read([record])[0]
        planes[index] = sheet.middle_slice(volume).copy()
        if index in counted:
            images = volume if volume.ndim == 3 else volume[:1]  # labels are no intensities
            measured[index] = sheet.Measured.of(images[(slice(None), *crop(record.box))])
    odd = tables.doubtful
    tiles = [sheet.Tile(planes[r.index], r.split == HELD_OUT, r.source in odd) for r in chosen]
    drawn = [
        sheet.Side(*_SIDES[side], [measured[record.index] for record in records])
        for side, records in sides.items()
    ]
    spreads = tables.dataset["normalised"] if tables.dataset else {}
    picture = store.orientation is None
    what = "picture" if picture else "axial middle slice of the first channel, the front on top"
    return [
        (sheet.sheet_caption(tiles, len(store.records), what), sheet.contact_sheet(tiles)),
        (sheet.panels_caption(drawn, spreads), sheet.intensity_panels(drawn, spreads)),
    ]


def _summary(dataset: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Rows of the table: name, value, what more there is to say."""
    raw, splits = dataset["raw"], dataset["splits"]
    sides = {
        name: ", ".join(f"{splits[side][name]} {label}" for side, (label, _) in _SIDES.items())
        for name in ("scans", "subjects")
    }
    voxels, spacing = (
        " × ".join(map(_range, raw[name])) for name in ("voxels_per_axis", "spacing_per_axis")
    )
    found = raw["orientations"]
    return [
        *((name, str(dataset[name]), about) for name, about in sides.items()),
        ("voxels as read", voxels, _counted(raw["shapes"], 3)),
        ("spacing as read, mm", spacing, _counted(raw["spacings"], 3)),
        ("orientation as read", " · ".join([*found][:3]), _counted(found, 3)),
        *(_covariate(name, about) for name, about in dataset["covariates"].items()),
    ]


def _covariate(name: str, about: Mapping[str, Any]) -> tuple[str, str, str]:
    missing = f"{about['missing'] or 'none'} missing"
    if "counts" in about:
        values = about["counts"]
        kinds = f"{len(values)} value" + "s" * (len(values) != 1)
        return name, kinds, "; ".join([*filter(None, [_counted(values, _MOST_VALUES)]), missing])
    return name, _range(about), f"median {about['median']:g}; {missing}"


def _range(spread: Mapping[str, float]) -> str:
    least, most = spread["min"], spread["max"]
    return f"{least:g}" if least == most else f"{least:g}–{most:g}"


def _counted(counts: Mapping[str, int], most: int) -> str:
    named = [f"{name} ({count})" for name, count in list(counts.items())[:most]]
    more = [f"{len(counts) - most} more"] if len(counts) > most else []
    return ", ".join(named + more)


def _warnings(rows: Sequence[_Row], places: Mapping[str, str]) -> Section:
    text = (
        "Scans that were accepted and yet are odd; a person should look at them. Place: row and "
        "column on the sheet."
        if rows
        else "There are no warnings: no scan is odd by itself, and none is far from the others. "
        "In a data set of few scans the latter is not judged."
    )
    cells = [(r["source"], r["code"], r["reason"], places.get(r["source"], "")) for r in rows]
    return _listed("Data: warnings", text, ("scan", "code", "reason", "place"), cells,
                   WARNINGS_TABLE, _codes(rows, WARNINGS))  # fmt: skip


def _duplicates(rows: Sequence[_Row], places: Mapping[str, str]) -> Section:
    leaks = sum(map(_leaks, rows))
    advice = ": one is trained on and the other is held out. Give both the same subject"
    text = (
        f"{len(rows)} pairs of scans are one scan or seem to be. Leaks across the split: "
        f"{f'{leaks}{advice}' if leaks else 'none'}. Place: row and column on the sheet."
        if rows
        else "There are no duplicates: no two scans have the same voxels, and no two of different "
        "subjects are nearly alike."
    )
    cells = [
        (row["first"], row["second"], row["kind"], row["correlation"],
         "yes" if _leaks(row) else "no",
         ", ".join(places[row[n]] for n in ("first", "second") if row[n] in places))
        for row in sorted(rows, key=lambda row: not _leaks(row))
    ]  # fmt: skip
    head = ("first", "second", "kind", "correlation", "leaks", "place")
    return _listed("Data: duplicates", text, head, cells, DUPLICATES)


def _leaks(row: _Row) -> bool:
    return row["leaks"] == "True"


def _rejections(rows: Sequence[_Row], accepted: int) -> Section:
    text = (
        f"{len(rows)} of {len(rows) + accepted} scans cannot be used, and were left out."
        if rows
        else f"No scan was rejected: all {accepted} that were found are used."
    )
    cells = [(row["source"], row["code"], row["reason"]) for row in rows]
    return _listed("Data: rejections", text, ("scan", "code", "reason"), cells,
                   REJECTIONS, _codes(rows, REFUSALS))  # fmt: skip


def _codes(rows: Sequence[_Row], meanings: Mapping[str, str]) -> list[tuple[str, str, str]]:
    """Each code with how often it occurs, the most frequent first, and what it means."""
    counts = Counter(row["code"] for row in rows)
    ordered = sorted(counts.items(), key=lambda pair: (-pair[1], pair[0]))
    return [(code, str(count), meanings.get(code, "")) for code, count in ordered]


def _listed(
    title: str,
    text: str,
    head: Sequence[str],
    cells: Sequence[Sequence[str]],
    file: str,
    table: Sequence[tuple[str, str, str]] = (),
) -> Section:
    """A section with the first rows of a table of words, and where the others are."""
    if len(cells) > MOST_ROWS:
        text += f" {len(cells) - MOST_ROWS} more in data/volumes/{file}."
    return Section(title, text, table, head=head, rows=cells[:MOST_ROWS], words=True, page="Data")
