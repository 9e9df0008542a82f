"""How well the prior predicts held-out codes."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float, Num
from torch import Tensor

from vqmri.evaluation.codebook import entropy_bits
from vqmri.prior import Prior
from vqmri.scans.volume import crop
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


def code_tensors(
    maps: Sequence[Num[np.ndarray, "item ..."]], num_embeddings: Sequence[int]
) -> list[Tensor]:
    """Stored maps as models take them: codes as int64, unquantised gains as float32."""
    return [
        torch.from_numpy(values.astype(np.int64 if number else np.float32))
        for values, number in zip(maps, num_embeddings, strict=True)
    ]


@torch.inference_mode()
def held_out_likelihood(
    prior: Prior,
    maps: Sequence[Num[Tensor, "item ..."]],
    masks: Sequence[Bool[np.ndarray, "item ..."]],
    rows: Float[Tensor, "item covariate"],
    temperature: float = 1.0,
) -> Likelihood:
    """Bits per code of items; values and masks per map, covariates per item. Keeps the mode."""
    was_training = prior.training
    prior.eval()
    totals = np.zeros(len(maps))
    batch = max(1, _POSITIONS_PER_BATCH // sum(int(np.prod(grid)) for grid in prior.grids))
    for start in range(0, len(rows), batch):
        chosen = [values[start : start + batch].to(prior.device) for values in maps]
        with mixed_precision(prior.device):
            found = prior(chosen, rows[start : start + batch].to(prior.device), temperature)
        for index, mask in enumerate(masks):
            bits = found[index].double().cpu().numpy() / math.log(2)
            totals[index] += float(bits[mask[start : start + batch]].sum())
    prior.train(was_training)
    positions = [int(mask.sum()) for mask in masks]
    return Likelihood(
        bits=[float(total / number) for total, number in zip(totals, positions, strict=True)],
        marginal_bits=[
            entropy_bits(np.bincount(values.numpy()[mask])) if size else float("nan")
            for values, mask, size in zip(maps, masks, prior.num_embeddings, strict=True)
        ],
        positions=positions,
    )
