"""A large grid as overlapping tiles, so that what was trained on patches works on whole volumes."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise, product
from types import EllipsisType

import torch
from jaxtyping import Float
from torch import Tensor

OVERLAP = 0.25
"""Least share of a tile that it has in common with the next one along an axis."""


@dataclass(frozen=True)
class Span:
    """One axis of a tile: it covers [start, stop), and is the one to ask in [first, last)."""

    start: int
    stop: int
    first: int
    last: int


Tile = tuple[Span, ...]
"""One span per axis."""

Index = tuple[EllipsisType | slice, ...]
"""Of the last axes of a tensor."""


def tiles(space: Sequence[int], size: Sequence[int], align: int) -> list[Tile]:
    """Tiles of `size` voxels over a grid of `space` voxels; their cores divide it among them.

    align: all bounds are multiples of it, as are `space` and `size`. An axis that is no longer
        than the tile is one span.
    """
    axes = [_spans(n, min(n, side), align) for n, side in zip(space, size, strict=True)]
    return list(product(*axes))


def _spans(length: int, size: int, align: int) -> list[Span]:
    step = max(int(size * (1 - OVERLAP)) // align, 1) * align
    number = -(-(length - size) // step) + 1
    free = (length - size) // align
    starts = [i * free // max(number - 1, 1) * align for i in range(number)]
    overlaps = ((after, before + size) for before, after in pairwise(starts))
    middles = [(begin + end) // (2 * align) * align for begin, end in overlaps]
    bounds = [0, *middles, length]
    return [
        Span(start, start + size, first, last)
        for start, (first, last) in zip(starts, pairwise(bounds), strict=True)
    ]


def covered(tile: Tile, factor: int = 1) -> Index:
    """All that a tile covers, in a grid `factor` times coarser."""
    return ..., *(slice(span.start // factor, span.stop // factor) for span in tile)


def core(tile: Tile, factor: int = 1) -> Index:
    """A tile's core, in a grid `factor` times coarser."""
    return ..., *(slice(span.first // factor, span.last // factor) for span in tile)


def core_within(tile: Tile, factor: int = 1) -> Index:
    """The same, counted from the tile's own first position."""
    return ..., *(
        slice((span.first - span.start) // factor, (span.last - span.start) // factor)
        for span in tile
    )


def weights(all_tiles: Sequence[Tile]) -> Iterator[Float[Tensor, "*tile"]]:
    """How much each tile counts at its voxels: at every voxel of the grid they add up to 1.

    Along an axis a tile's weight falls in a straight line over what it shares with the next.
    """
    spans_of = zip(*all_tiles, strict=True)
    axes = [sorted(set(spans), key=lambda span: span.start) for spans in spans_of]
    ramps = [_ramps(spans) for spans in axes]
    for tile in all_tiles:
        weight = torch.ones(())
        for span, of_axis in zip(tile, ramps, strict=True):
            weight = weight.unsqueeze(-1) * of_axis[span]
        yield weight


def _ramps(spans: Sequence[Span]) -> dict[Span, Tensor]:
    """Of each span of one axis, its weight at each of its positions."""
    found = {span: torch.ones(span.stop - span.start) for span in spans}
    for before, after in pairwise(spans):
        shared = before.stop - after.start
        if shared == 0:
            continue
        rise = (torch.arange(shared) + 0.5) / shared
        found[after][:shared] *= rise
        found[before][-shared:] *= rise.flip(0)
    total = torch.zeros(spans[-1].stop)  # not 1 where three spans meet
    for span, weight in found.items():
        total[span.start : span.stop] += weight
    return {span: weight / total[span.start : span.stop] for span, weight in found.items()}
