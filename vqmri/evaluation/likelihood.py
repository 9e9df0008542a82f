"""How well the prior predicts held-out codes."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from vqmri.evaluation.codebook import entropy_bits
from vqmri.prior import Prior
from vqmri.prior.objective import bits
from vqmri.scans.volume import crop
from vqmri.shapes import Box
from vqmri.training.device import mixed_precision

_BATCH = 4


class Likelihood(NamedTuple):
    """Means over the positions inside the fields of view, all levels together.

    bits_per_code: −log2 p(code) under the prior; lower is better
    marginal_bits_per_code: entropy of the same codes' own histogram, which knows no context
    positions: how many positions that is
    """

    bits_per_code: float
    marginal_bits_per_code: float
    positions: int


def inside(boxes: Sequence[Box], grid: Sequence[int]) -> Bool[np.ndarray, "item *grid"]:
    """True at the code positions within each item's box; the rest is padding and left out."""
    masks = np.zeros((len(boxes), *grid), dtype=bool)
    for mask, box in zip(masks, boxes, strict=True):
        mask[crop(box)] = True
    return masks


@torch.inference_mode()
def held_out_likelihood(
    prior: Prior, codes: Sequence[Tensor], masks: Sequence[Bool[np.ndarray, "item ..."]]
) -> Likelihood:
    """Bits per code of items, codes and masks per level, finest first. Leaves the prior's mode."""
    was_training = prior.training
    prior.eval()
    device = prior.device
    total, marginal, positions = 0.0, 0.0, 0
    for start in range(0, len(codes[0]), _BATCH):
        chosen = [level[start : start + _BATCH].long().to(device) for level in codes]
        with mixed_precision(device):
            logits = prior(chosen)
        for level, mask in enumerate(masks):
            per_position = bits(logits[level], chosen[level]).double().cpu().numpy()
            total += float(per_position[mask[start : start + _BATCH]].sum())
    for level, mask in enumerate(masks):
        counts = np.bincount(codes[level].numpy()[mask])
        marginal += entropy_bits(counts) * int(mask.sum())
        positions += int(mask.sum())
    prior.train(was_training)
    return Likelihood(total / positions, marginal / positions, positions)
