"""Segmentation: can the anatomy of real scans be learnt from samples and their label maps?

A small U-Net (Ronneberger et al. 2015, arXiv:1505.04597, with residual units: Zhang et al. 2018,
arXiv:1711.10684) is trained on pairs of grey values and labels and tested on real scans.
"""

from typing import final

import numpy as np
import torch
from jaxtyping import Float, Int
from monai.losses import DiceCELoss
from monai.networks.nets import UNet
from torch import Tensor, nn
from torch.nn import functional

from vqmri.evaluation.accuracy import Items, Progress, as_tensor, minimise
from vqmri.shapes import Volumes
from vqmri.training.augment import Augmentation
from vqmri.training.batches import item_seed
from vqmri.training.device import choose_device, mixed_precision

CHANNELS = (16, 32, 64)
"""At a half, a quarter and again a quarter of the size."""

_PEAK_RATE = 4e-3
_MULTIPLE, _LEAST = 4, 8  # voxels of a side: two halvings, and more than one position then
_ROTATION, _SCALING, _TRANSLATION, _CONTRAST = 10.0, 0.1, 0.04, 0.2


@final
class Segmenter(nn.Module):
    """MONAI's U-Net with residual units and instance norm; 283,000 parameters in 3D.

    Any size of volume goes: it is padded with zeros to a multiple of four and cut again.
    """

    def __init__(self, spatial_dims: int, in_channels: int, num_classes: int) -> None:
        super().__init__()
        self.net = UNet(
            spatial_dims, in_channels, num_classes, CHANNELS, strides=(2, 2), num_res_units=2
        )

    def forward(self, volumes: Volumes) -> Float[Tensor, "batch classes *space"]:
        sides = volumes.shape[2:]
        wanted = [max(-(-side // _MULTIPLE) * _MULTIPLE, _LEAST) for side in sides]
        ends = [(0, n - side) for n, side in zip(wanted, sides, strict=True)]
        padding = [pixels for end in reversed(ends) for pixels in end]
        logits = self.net(functional.pad(volumes, padding))
        return logits[..., *(slice(side) for side in sides)]


def train_segmenter(
    volumes: Items,
    num_classes: int,
    *,
    steps: int,
    seed: int,
    batch_size: int,
    progress: Progress = lambda steps: None,
) -> Segmenter:
    """A U-Net in evaluation mode, trained by Dice loss and cross-entropy on varied volumes.

    volumes: intensities in [0, 1], and as the last channel indices of labels, the background 0
    Equal arguments give equal weights on the CPU, and the caller's random state is left alone.
    DivergedError when the loss is not a finite number.
    """
    device = choose_device()
    count, channels, *space = volumes.shape
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Segmenter(len(space), channels - 1, num_classes).to(device)
    criterion = DiceCELoss(to_onehot_y=True, softmax=True, include_background=False)
    vary = Augmentation(
        device=device,
        labelled=True,
        flips=[],
        rotation=_ROTATION,
        scaling=_SCALING,
        translation=[_TRANSLATION * side for side in space],
        contrast=_CONTRAST,
    )

    def loss(step: int, chosen: list[int]) -> Tensor:
        seeds = [item_seed(seed, step, slot) for slot in range(len(chosen))]
        varied = vary(as_tensor(volumes[chosen]).to(device), seeds)
        grey = varied[:, :-1].contiguous(memory_format=_layout(len(space)))
        with mixed_precision(device):
            logits = model(grey)
        return criterion(logits.float(), varied[:, -1:])

    minimise(loss, model, count, steps=steps, seed=seed, batch_size=batch_size,
             peak_rate=_PEAK_RATE, progress=progress)  # fmt: skip
    return model.eval()


@torch.inference_mode()
def segment(
    model: Segmenter, grey: Float[np.ndarray, "item channel *space"]
) -> Int[np.ndarray, "item *space"]:
    """The likeliest label of every voxel."""
    device = next(model.parameters()).device
    with mixed_precision(device):
        logits = model(as_tensor(grey).to(device))
    return logits.float().argmax(dim=1).cpu().numpy()


def mean_dice(scores: Float[np.ndarray, "scan label"]) -> float:
    """Mean over scans of the mean over their labels; NaN where no scan has any label."""
    present = ~np.isnan(scores)
    counted = present.sum(axis=1)
    of_scans = np.where(present, scores, 0.0).sum(axis=1)[counted > 0] / counted[counted > 0]
    return float(of_scans.mean()) if len(of_scans) else float("nan")


def _layout(spatial_dims: int) -> torch.memory_format:
    """Channels last, in which convolutions on the CPU take two thirds of the time."""
    return torch.channels_last if spatial_dims == 2 else torch.channels_last_3d
