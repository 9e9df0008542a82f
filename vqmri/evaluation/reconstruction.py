"""How close reconstructions are to their volumes."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float, Num
from monai.metrics import PSNRMetric, SSIMMetric

from vqmri.scans.volume import crop
from vqmri.shapes import Box

SSIM_WINDOW = 7
"""Side of SSIM's Gaussian window in voxels; small, because some scans are small."""

_ITEMS_PER_BATCH = 64

Volumes = Float[np.ndarray, "volume channel *space"]


def psnr_in_view(predicted: Volumes, volumes: Volumes, boxes: Sequence[Box]) -> list[float]:
    """10 log10(1 / MSE) in dB of each volume inside its field of view; higher is better.

    Intensities are in [0, 1], so the data range is 1.
    """
    return _in_view(PSNRMetric(max_val=1.0), predicted, volumes, boxes)


def psnr_in_foreground(
    predicted: Volumes, volumes: Volumes, boxes: Sequence[Box], above: float
) -> list[float]:
    """10 log10(1 / MSE) in dB of each volume, where its first channel exceeds `above`; range 1.

    Higher is better. Air, where every reconstruction is right, does not count. NaN for a volume
    without such voxels.
    """
    found = []
    for guess, volume, box in zip(predicted, volumes, boxes, strict=True):
        view = (slice(None), *crop(box))
        inside = volume[view][0] > above
        squared = np.square(guess[view][:, inside] - volume[view][:, inside], dtype=np.float64)
        found.append(float(-10 * np.log10(squared.mean())) if inside.any() else float("nan"))
    return found


def ssim_in_view(predicted: Volumes, volumes: Volumes, boxes: Sequence[Box]) -> list[float]:
    """Structural similarity of each volume inside its field of view, at most 1; higher is better.

    Wang et al. 2004, Gaussian window, data range 1. NaN for a field of view that is smaller than
    the window.
    """
    metric = SSIMMetric(spatial_dims=volumes.ndim - 2, data_range=1.0, win_size=SSIM_WINDOW)
    return _in_view(metric, predicted, volumes, boxes, smallest=SSIM_WINDOW)


def dice(predicted: Num[np.ndarray, " voxel"], true: Num[np.ndarray, " voxel"]) -> float:
    """2|A∩B| / (|A| + |B|), mean over the labels but the background 0; higher is better.

    NaN when neither has any label.
    """
    labels = [label for label in np.union1d(predicted, true) if label != 0]
    scores = [
        2 * ((predicted == label) & (true == label)).sum()
        / ((predicted == label).sum() + (true == label).sum())
        for label in labels
    ]  # fmt: skip
    return float(np.mean(scores)) if scores else float("nan")


def _in_view(
    metric: Callable[..., torch.Tensor],
    predicted: Volumes,
    volumes: Volumes,
    boxes: Sequence[Box],
    smallest: int = 1,
) -> list[float]:
    """The metric of each volume; those with one field of view are measured together."""
    found = np.full(len(boxes), np.nan)
    for box in dict.fromkeys(boxes):
        if min(stop - start for start, stop in box) < smallest:
            continue
        same = np.array([index for index, other in enumerate(boxes) if other == box])
        view = (slice(None), *crop(box))
        for items in np.array_split(same, -(-len(same) // _ITEMS_PER_BATCH)):
            pair = [
                torch.tensor(np.stack([a[i][view] for i in items])) for a in (predicted, volumes)
            ]
            scores = metric(y_pred=pair[0], y=pair[1])
            found[items] = scores.reshape(len(items), -1).mean(dim=1).numpy()
    return [float(value) for value in found]
