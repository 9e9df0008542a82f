"""How well the prior predicts held-out codes."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Num, Shaped
from torch import Tensor

from vqmri.codes import CodeStore, bits_per_position
from vqmri.evaluation.codebook import entropy_bits
from vqmri.prior import Prior
from vqmri.scans.volume import code_box, crop
from vqmri.shapes import Box
from vqmri.training.device import mixed_precision

_POSITIONS_PER_BATCH = 8192


class Likelihood(NamedTuple):
    """Means over the positions inside the fields of view, one per map, finest first.

    bits: −log2 p(code) under the prior; lower is better. Of an unquantised gain: of its density
    marginal_bits: entropy of the same codes' own histogram, which knows no context; NaN for gains
        that are real numbers
    positions: how many positions that is
    """

    bits: list[float]
    marginal_bits: list[float]
    positions: list[int]

    @property
    def bits_per_code(self) -> float:
        """Mean over the positions of all maps of codes together."""
        return self._mean(self.bits)

    @property
    def marginal_bits_per_code(self) -> float:
        """The same of the histograms' entropies."""
        return self._mean(self.marginal_bits)

    def _mean(self, values: Sequence[float]) -> float:
        codes = np.isfinite(self.marginal_bits)
        return float(np.average(np.array(values)[codes], weights=np.array(self.positions)[codes]))


def inside(boxes: Sequence[Box], grid: Sequence[int]) -> Bool[np.ndarray, "item *grid"]:
    """True at the code positions within each item's box; the rest is padding and left out."""
    masks = np.zeros((len(boxes), *grid), dtype=bool)
    for mask, box in zip(masks, boxes, strict=True):
        mask[crop(box)] = True
    return masks


def masks_in_view(codes: CodeStore, boxes: Sequence[Box]) -> list[Bool[np.ndarray, "item ..."]]:
    """`inside` of each map: the code positions that touch each item's field of view."""
    return [
        inside([code_box(box, factor) for box in boxes], grid)
        for factor, grid in zip(codes.attributes["downsamplings"], codes.grids, strict=True)
    ]


def plain_bits(box: Box, downsamplings: Sequence[int], num_embeddings: Sequence[int]) -> float:
    """Σ log2 K over the codes that touch a field of view: what they cost without the prior."""
    return sum(
        bits_per_position(number) * math.prod(stop - start for start, stop in code_box(box, factor))
        for factor, number in zip(downsamplings, num_embeddings, strict=True)
    )


def held_out_likelihood(
    prior: Prior,
    maps: Sequence[Num[Tensor, "item ..."]],
    masks: Sequence[Bool[np.ndarray, "item ..."]],
    rows: Float[Tensor, "item covariate"],
    temperature: float = 1.0,
) -> Likelihood:
    """Bits per code of items; values and masks per map, covariates per item. Keeps the mode."""
    totals = _total_bits(prior, maps, masks, rows, temperature).sum(axis=1)
    positions = [int(mask.sum()) for mask in masks]
    return Likelihood(
        bits=[float(total / number) for total, number in zip(totals, positions, strict=True)],
        marginal_bits=[
            entropy_bits(np.bincount(values.numpy()[mask])) if size else float("nan")
            for values, mask, size in zip(maps, masks, prior.num_embeddings, strict=True)
        ],
        positions=positions,
    )


def item_bits(
    prior: Prior,
    maps: Sequence[Num[Tensor, "item ..."]],
    masks: Sequence[Bool[np.ndarray, "item ..."]],
    rows: Float[Tensor, "item covariate"],
    temperature: float = 1.0,
) -> Float[np.ndarray, " item"]:
    """−log2 p(codes) / positions in the field of view, of each item; lower is likelier.

    Over all maps of codes together; unquantised gains are left out. Arguments as those of
    `held_out_likelihood`, whose bits_per_code is the mean of these, weighted by the positions.
    """
    codes = np.array(prior.num_embeddings) > 0
    totals = _total_bits(prior, maps, masks, rows, temperature)[codes].sum(axis=0)
    return totals / _per_item(masks)[codes].sum(axis=0)


@torch.inference_mode()
def _total_bits(
    prior: Prior,
    maps: Sequence[Num[Tensor, "item ..."]],
    masks: Sequence[Bool[np.ndarray, "item ..."]],
    rows: Float[Tensor, "item covariate"],
    temperature: float,
) -> Float[np.ndarray, "map item"]:
    """Sums over the positions in the masks."""
    was_training = prior.training
    prior.eval()
    totals = []
    batch = max(1, _POSITIONS_PER_BATCH // sum(int(np.prod(grid)) for grid in prior.grids))
    for start in range(0, len(rows), batch):
        chosen = slice(start, start + batch)
        values = [each[chosen].to(prior.device) for each in maps]
        with mixed_precision(prior.device):
            found = prior(values, rows[chosen].to(prior.device), temperature)
        bits = [nats.double().cpu().numpy() / math.log(2) for nats in found]
        inside_only = zip(bits, (mask[chosen] for mask in masks), strict=True)
        totals.append(_per_item([np.where(mask, each, 0.0) for each, mask in inside_only]))
    prior.train(was_training)
    return np.concatenate(totals, axis=1)


def _per_item(maps: Sequence[Shaped[np.ndarray, "item ..."]]) -> Num[np.ndarray, "map item"]:
    """Sums over the positions; of masks, how many are in them."""
    return np.stack([values.reshape(len(values), -1).sum(axis=1) for values in maps])
