"""How close reconstructions are to their volumes."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Bool, Float, Num
from monai.metrics import PSNRMetric, SSIMMetric
from monai.metrics.regression import compute_ssim_and_cs
from torch import Tensor
from torch.nn import functional

from vqmri.scans.volume import crop
from vqmri.shapes import Box

SSIM_WINDOW = 7
"""Side of SSIM's Gaussian window in voxels; small, because some scans are small."""

MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Of each scale in MS-SSIM, finest first (Wang et al. 2003)."""

_SSIM_SIGMA = 1.5
_MOST_ITEMS, _VALUES_PER_BATCH = 64, 2**22  # SSIM's working memory is 19 times its batch
_HALVE = {2: functional.avg_pool2d, 3: functional.avg_pool3d}

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
        found.append(_psnr_where(guess[view], volume[view], volume[view][0] > above))
    return found


def psnr_per_label(
    predicted: Volumes,
    volumes: Volumes,
    labels: Num[np.ndarray, "volume *space"],
    boxes: Sequence[Box],
    values: Sequence[int],
) -> dict[int, list[float]]:
    """10 log10(1 / MSE) in dB of each volume where the true label map has a value; range 1.

    One list per value, one number per volume; higher is better. NaN for a volume that lacks the
    label in its field of view, infinite where every voxel is right.

    labels: the true maps; predicted, volumes: the grey channels alone
    """
    found: dict[int, list[float]] = {value: [] for value in values}
    for guess, volume, label, box in zip(predicted, volumes, labels, boxes, strict=True):
        view = (..., *crop(box))
        for value, scores in found.items():
            scores.append(_psnr_where(guess[view], volume[view], label[view] == value))
    return found


def mae_in_view(predicted: Volumes, volumes: Volumes, boxes: Sequence[Box]) -> list[float]:
    """Mean |difference| of each volume inside its field of view, 0 to 1; lower is better."""
    return [
        float(np.abs(guess[..., *crop(box)] - volume[..., *crop(box)]).mean(dtype=np.float64))
        for guess, volume, box in zip(predicted, volumes, boxes, strict=True)
    ]


def ssim_in_view(predicted: Volumes, volumes: Volumes, boxes: Sequence[Box]) -> list[float]:
    """Structural similarity of each volume inside its field of view, at most 1; higher is better.

    Wang et al. 2004, Gaussian window, data range 1. NaN for a field of view that is smaller than
    the window.
    """
    metric = SSIMMetric(spatial_dims=volumes.ndim - 2, data_range=1.0, win_size=SSIM_WINDOW)
    return _in_view(metric, predicted, volumes, boxes, smallest=SSIM_WINDOW)


def num_scales(smallest_side: int) -> int:
    """Scales of MS-SSIM: at most 5, and at the coarsest the smallest side still holds the window.

    Each scale has half the side of the one before. 0 where not even the first holds the window.
    """
    return min((smallest_side // SSIM_WINDOW).bit_length(), len(MS_SSIM_WEIGHTS))


def ms_ssim_in_view(predicted: Volumes, volumes: Volumes, boxes: Sequence[Box]) -> list[float]:
    """Multi-scale structural similarity inside each field of view, 0 to 1; higher is better.

    Wang et al. 2003: Π contrast_j^w_j over the scales, the coarsest with its luminance too, where a
    negative factor counts as 0. The weights of the `num_scales` that fit the smallest side of the
    field of view are made to add up to 1. NaN where none fits.
    """
    return _in_view(_ms_ssim, predicted, volumes, boxes, smallest=SSIM_WINDOW)


def pairwise_ms_ssim(volumes: Volumes, pairs: int, seed: int) -> float:
    """Mean MS-SSIM of random pairs of different volumes, whole arrays; lower is more diverse.

    The diversity measure of Odena et al. 2017. Compare with that of real volumes: far below it is
    noise. Pairs are drawn without repetition; all of them are taken when there are no more than
    `pairs`. NaN for fewer than 2 volumes and where the window does not fit.
    """
    total = len(volumes) * (len(volumes) - 1) // 2
    if total == 0 or num_scales(min(volumes.shape[2:])) == 0:
        return float("nan")
    chosen = np.random.default_rng(seed).choice(total, min(pairs, total), replace=False)
    # the pairs (i, j) with i < j, counted column by column
    j = ((1 + np.sqrt(1 + 8 * chosen.astype(np.float64))) // 2).astype(np.int64)
    i = chosen - j * (j - 1) // 2
    size = _items_per_batch(volumes[0].size)
    scores = [
        _ms_ssim(*(torch.from_numpy(volumes[side[start : start + size]]) for side in (i, j)))
        for start in range(0, len(chosen), size)
    ]
    return float(torch.cat(scores).double().mean())


def dice(predicted: Num[np.ndarray, " voxel"], true: Num[np.ndarray, " voxel"]) -> float:
    """2|A∩B| / (|A| + |B|), mean over the labels but the background 0; higher is better.

    NaN when neither has any label.
    """
    labels = [int(label) for label in np.union1d(predicted, true) if label != 0]
    return float(dice_of_labels(predicted, true, labels).mean()) if labels else float("nan")


def dice_of_labels(
    predicted: Num[np.ndarray, "*space"], true: Num[np.ndarray, "*space"], labels: Sequence[int]
) -> Float[np.ndarray, " label"]:
    """2|A∩B| / (|A| + |B|) of each label, 0 to 1; higher is better. NaN where neither has it."""
    found = np.full(len(labels), np.nan)
    for row, label in enumerate(labels):
        guess, truth = predicted == label, true == label
        if size := guess.sum() + truth.sum():
            found[row] = 2 * (guess & truth).sum() / size
    return found


def _psnr_where(
    guess: Float[np.ndarray, "channel *space"],
    volume: Float[np.ndarray, "channel *space"],
    inside: Bool[np.ndarray, "*space"],
) -> float:
    if not inside.any():
        return float("nan")
    mse = np.square(guess[:, inside] - volume[:, inside], dtype=np.float64).mean()
    return float(-10 * np.log10(mse)) if mse > 0 else float("inf")


def _ms_ssim(
    y_pred: Float[Tensor, "batch channel *space"], y: Float[Tensor, "batch channel *space"]
) -> Float[Tensor, " batch"]:
    """Of each pair. MONAI's own asks for more room at 4 scales than the window needs."""
    dims = y.ndim - 2
    weights = torch.tensor(MS_SSIM_WEIGHTS[: num_scales(min(y.shape[2:]))])
    product = torch.ones(len(y))
    for scale, weight in enumerate(weights / weights.sum()):
        if scale > 0:
            y_pred, y = _HALVE[dims](y_pred, 2), _HALVE[dims](y, 2)
        ssim, contrast = compute_ssim_and_cs(
            y_pred, y, dims, kernel_size=[SSIM_WINDOW] * dims, kernel_sigma=[_SSIM_SIGMA] * dims
        )
        kept = ssim if scale == len(weights) - 1 else contrast
        product *= kept.flatten(start_dim=1).mean(dim=1).relu() ** weight
    return product


def _items_per_batch(values: int) -> int:
    return max(1, min(_MOST_ITEMS, _VALUES_PER_BATCH // values))


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
        size = _items_per_batch(volumes[0][view].size)
        for items in np.array_split(same, -(-len(same) // size)):
            pair = [
                torch.tensor(np.stack([a[i][view] for i in items])) for a in (predicted, volumes)
            ]
            scores = metric(y_pred=pair[0], y=pair[1])
            found[items] = scores.reshape(len(items), -1).mean(dim=1).numpy()
    return [float(value) for value in found]
