"""How close reconstructions are to their volumes."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from monai.metrics import PSNRMetric, SSIMMetric

from vqmri.scans.volume import crop
from vqmri.shapes import Box

SSIM_WINDOW = 7
"""Side of SSIM's Gaussian window in voxels; small, because some scans are small."""

Volumes = Float[np.ndarray, "volume channel *space"]


def psnr_in_view(predicted: Volumes, volumes: Volumes, boxes: Sequence[Box]) -> list[float]:
    """10 log10(1 / MSE) in dB of each volume inside its field of view; higher is better.

    Intensities are in [0, 1], so the data range is 1.
    """
    metric = PSNRMetric(max_val=1.0)
    return [float(metric(y_pred=p, y=v)) for p, v in _inside(predicted, volumes, boxes)]


def ssim_in_view(predicted: Volumes, volumes: Volumes, boxes: Sequence[Box]) -> list[float]:
    """Structural similarity of each volume inside its field of view, at most 1; higher is better.

    Wang et al. 2004, Gaussian window, data range 1. NaN for a field of view that is smaller than
    the window.
    """
    metric = SSIMMetric(spatial_dims=volumes.ndim - 2, data_range=1.0, win_size=SSIM_WINDOW)
    return [
        float(metric(y_pred=p, y=v)) if min(p.shape[2:]) >= SSIM_WINDOW else float("nan")
        for p, v in _inside(predicted, volumes, boxes)
    ]


def _inside(
    predicted: Volumes, volumes: Volumes, boxes: Sequence[Box]
) -> list[tuple[torch.Tensor, torch.Tensor]]:
    pairs = []
    for p, v, box in zip(predicted, volumes, boxes, strict=True):
        view = (slice(None), *crop(box))
        pairs.append((torch.tensor(p[view])[None], torch.tensor(v[view])[None]))
    return pairs
