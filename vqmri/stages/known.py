"""Scans that tests of privacy compare with, and the copies by which a prior may know them."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from torch import Tensor

from vqmri.build.encode import Variation, variations
from vqmri.codes import code_tensors
from vqmri.evaluation.likelihood import item_bits, masks_in_view
from vqmri.outputs import Manifest
from vqmri.outputs.reading import understood
from vqmri.params import Encode, Variations
from vqmri.prior import Prior
from vqmri.prior.covariates import known_rows
from vqmri.scans.split import HELD_OUT, TRAIN
from vqmri.shapes import Box
from vqmri.stages.opened import Opened
from vqmri.stages.varied import varied

MOST, MOST_ITEMS = 2_000, 4_000
"""Scans of each side, and scans and copies together, at most."""

_VALUES_PER_CHUNK = 2**25


@dataclass(frozen=True)
class Copies:
    """Varied copies of one side's scans.

    settings, seed: what they are made with; each: with its number, on which its voxels depend
    first: row of the stored codes of number 0; None for copies that were not learnt from
    """

    settings: Variations
    seed: int
    each: Sequence[tuple[int, Variation]]
    first: int | None

    def volumes(self, opened: Opened) -> Iterator[np.ndarray]:
        """Their volumes (copy, channel, *space), some at a time."""
        for part in chunks(opened, len(self.each)):
            numbers, copies = zip(*self.each[part.start : part.stop], strict=True)
            yield varied(opened.volumes, self.settings, self.seed, copies, numbers)

    def codes(self, opened: Opened) -> list[np.ndarray]:
        """Values of each map, (copy, *grid)."""
        if self.first is not None:
            return opened.codes.read([self.first + number for number, _ in self.each])
        parts = map(opened.generator.encode, self.volumes(opened))
        return [np.concatenate(values) for values in zip(*parts, strict=True)]


class Side:
    """Scans of one side of the split, and after them their copies: the items.

    A prior that learnt from varied copies alone knows those by heart, and hardly the scans as they
    are; so either side has copies, made in one way.

    scans: their number; rows: of the volumes' table, of each item; subjects: of each item
    maps: codes of the items
    """

    def __init__(self, opened: Opened, rows: Sequence[int], copies: Copies | None = None) -> None:
        self._opened, self._copies = opened, copies
        self.scans = len(rows)
        self.rows = [*rows, *(copy.of for _, copy in (copies.each if copies else ()))]
        self._records = [opened.volumes.records[row] for row in self.rows]
        self.subjects = [record.subject for record in self._records]
        self.maps = opened.codes.read(rows)
        if copies:
            pairs = zip(self.maps, copies.codes(opened), strict=True)
            self.maps = [np.concatenate(pair) for pair in pairs]

    @property
    def tensors(self) -> list[Tensor]:
        """The codes as a prior takes them."""
        return code_tensors(self.maps, self._opened.codes.num_embeddings)

    def covariates(self, prior: Prior) -> Tensor:
        """Of the items, as a prior takes them."""
        found = [record.covariates for record in self._records[: self.scans]]
        found += [copy.covariates for _, copy in self._copies.each] if self._copies else []
        return known_rows(prior.covariates, found)

    def bits(self, prior: Prior) -> Float[np.ndarray, " scan"]:
        """Per code, under a prior, of each scan: the least of its items."""
        masks = masks_in_view(self._opened.codes, list(self._boxes()))
        found = item_bits(prior, self.tensors, masks, self.covariates(prior))
        place = {row: i for i, row in enumerate(self.rows[: self.scans])}
        least = np.full(self.scans, np.inf)
        np.minimum.at(least, [place[row] for row in self.rows], found)
        return least

    def _boxes(self) -> Iterator[Box]:
        """Fields of view; that of a copy is but for the few voxels by which it was moved."""
        yield from (record.box for record in self._records[: self.scans])
        for _, copy in self._copies.each if self._copies else ():
            box = self._opened.volumes.records[copy.of].box
            yield mirrored(box, self._opened.volumes.shape[1]) if copy.mirrored else box

    def scan_volumes(self) -> Iterator[np.ndarray]:
        """The scans' volumes (scan, channel, *space), some at a time."""
        for part in chunks(self._opened, self.scans):
            yield self._opened.volumes.read(self._records[part.start : part.stop])

    def volumes(self) -> Iterator[np.ndarray]:
        """Those of all items."""
        yield from self.scan_volumes()
        yield from self._copies.volumes(self._opened) if self._copies else ()


def mirrored(box: Box, width: int) -> Box:
    """The field of view of a volume that is `width` voxels wide, after left and right change."""
    (start, stop), *others = box
    return ((width - stop, width - start), *others)


def sides(opened: Opened, seed: int) -> tuple[Side, Side]:
    """Training and held-out scans, MOST of either at most, with equally many copies of each."""
    random = np.random.default_rng([seed, 3])
    records, count = opened.volumes.records, len(opened.codes.attributes.get("variations", []))
    settings, made = _settings(opened) if count else (None, 0)
    rows = {
        split: sorted(random.permutation(opened.indices(split))[:MOST].tolist())
        for split in (TRAIN, HELD_OUT)
    }
    # more copies alone have fewer bits and are nearer, so neither side has more of a scan
    passes = max(1, MOST_ITEMS // max(map(len, rows.values())) - 1)

    def side(split: str, start: int, first: int | None) -> Side:
        if settings is None:
            return Side(opened, rows[split])
        chosen, most = set(rows[split]), passes * len(opened.indices(split))
        every = variations(settings, records, split)[:most]  # pass by pass
        each = [(start + i, copy) for i, copy in enumerate(every) if copy.of in chosen]
        return Side(opened, rows[split], Copies(settings, made, each, first))

    return side(TRAIN, 0, len(records)), side(HELD_OUT, count, None)


def _settings(opened: Opened) -> tuple[Variations | None, int]:
    """What the stored copies were made with."""
    folder = opened.folders["codes"]
    params = Manifest.read(folder).provenance["params"]
    with understood(folder, "Make it again with `vqmri encode`."):
        return Encode.model_validate(params["encode"]).variations, params["seed"]


def chunks(opened: Opened, count: int) -> Iterable[range]:
    """So many of `count` volumes as are in memory together."""
    size = max(1, _VALUES_PER_CHUNK // int(np.prod(opened.volumes.shape)))
    return (range(start, min(start + size, count)) for start in range(0, count, size))
