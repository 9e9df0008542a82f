"""Who is trained on and who is held out."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from vqmri.errors import ParamsError
from vqmri.scans.volume import Record

TRAIN, HELD_OUT = "train", "held_out"


def rows_of(records: Sequence[Record], split: str) -> list[int]:
    """Rows of one side of the split, in a table of these records."""
    return [row for row, record in enumerate(records) if record.split == split]


def split_subjects(
    subjects: Iterable[str], *, held_out: float, seed: int, strata: Mapping[str, str] | None = None
) -> dict[str, str]:
    """Side of each subject: all scans of a person are on one side.

    held_out: share of the subjects, rounded, and at least one on each side.
    strata: subject to stratum, for example a sex or a site. The number held out stays the same, and
        of each stratum it is the share, rounded up or down; without strata chance alone decides.
    Raises ValueError when there are fewer than two subjects, or when one has no stratum.
    """
    people = sorted(set(subjects))
    if len(people) < 2:
        raise ValueError("a split needs at least two subjects")
    count = min(max(round(held_out * len(people)), 1), len(people) - 1)
    order = [people[i] for i in np.random.default_rng(seed).permutation(len(people))]
    chosen = set(order[:count] if strata is None else _spread(order, count, strata))
    return {person: HELD_OUT if person in chosen else TRAIN for person in people}


def strata_of(records: Sequence[Record], names: Sequence[str]) -> dict[str, str] | None:
    """Subject to what it has of the covariates `names`, or None without names.

    A covariate of numbers counts by the third of the data set that the value is in; what is missing
    is a value of its own. Of several scans of a person the first counts.
    Raises ParamsError for a covariate that no scan has.
    """
    if not names:
        return None
    columns = [_levels([record.covariates.get(name) for record in records], name) for name in names]
    found: dict[str, str] = {}
    for record, *levels in zip(records, *columns, strict=True):
        found.setdefault(record.subject, "·".join(levels))
    return found


def _levels(values: Sequence[Any], name: str) -> list[str]:
    known = [value for value in values if value is not None]
    if not known:
        raise ParamsError(
            f"ingest.stratify: no scan has the covariate {name!r}. Name it in "
            "ingest.source.covariates too, or take it out."
        )
    if any(isinstance(value, str) for value in known):
        return [str(value) for value in values]
    edges = np.quantile(known, [1 / 3, 2 / 3])
    return [
        "None" if value is None else str(np.searchsorted(edges, value, side="right"))
        for value in values
    ]


def _spread(order: Sequence[str], count: int, strata: Mapping[str, str]) -> list[str]:
    """The first of each stratum, `count` in all, by the largest remainder (Hamilton's method)."""
    if missing := sorted(person for person in order if person not in strata):
        raise ValueError(f"{len(missing)} subjects have no stratum, for example {missing[0]!r}")
    groups: dict[str, list[str]] = defaultdict(list)
    for person in order:  # strata in the order of the draw, so that equal remainders go by chance
        groups[strata[person]].append(person)
    # count · size / subjects, in whole numbers: what is due, and what is left over
    due = {name: divmod(count * len(group), len(order)) for name, group in groups.items()}
    seats = {name: whole for name, (whole, _) in due.items()}
    left = count - sum(seats.values())
    for name in sorted(due, key=lambda name: -due[name][1])[:left]:
        seats[name] += 1
    return [person for name, group in groups.items() for person in group[: seats[name]]]
