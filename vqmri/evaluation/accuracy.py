"""Classification accuracy score: are samples good enough to learn from?

Train a classifier on samples and their labels alone and test it on real data (Ravuri & Vinyals
2019, arXiv:1905.10887; used for VQ-VAE-2, arXiv:1906.00446). A model that drops a class or repeats
itself loses there what it may win in sharpness. The score stands beside that of the same
classifier trained on real data, its upper mark.
"""

from collections.abc import Callable
from typing import Any, final

import numpy as np
import torch
from jaxtyping import Float, Int, Integer
from torch import Tensor, nn
from torch.nn import functional

from vqmri.convolution import convolution
from vqmri.errors import DivergedError
from vqmri.shapes import Volumes
from vqmri.training.batches import batch_indices
from vqmri.training.device import choose_device, mixed_precision
from vqmri.training.loop import MAX_GRADIENT_NORM
from vqmri.training.optim import adamw, warmup_cosine

WIDTHS = ((16,), (32,), (64, 64), (96,))
"""Channels of the convolutions at full size, at a half, a quarter and an eighth of it."""

_GROUPS = 8
_PEAK_RATE = 5e-3
_WEIGHT_DECAY = 0.01
_POOLS: dict[int, Any] = {2: nn.MaxPool2d, 3: nn.MaxPool3d}


@final
class Classifier(nn.Module):
    """Convolutions with group norm, max pools between scales, the mean over space, a linear layer.

    One class for 2D and 3D; 117,000 parameters in 2D. Any size of volume goes, down to one voxel.
    """

    def __init__(self, spatial_dims: int, in_channels: int, num_classes: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = in_channels
        for scale, widths in enumerate(WIDTHS):
            if scale > 0:
                layers.append(_POOLS[spatial_dims](2, ceil_mode=True))
            for width in widths:
                layers += [convolution(spatial_dims, before, width, 3, padding=1)]
                layers += [nn.GroupNorm(_GROUPS, width), nn.SiLU()]
                before = width
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(before, num_classes)

    def forward(self, volumes: Volumes) -> Float[Tensor, "batch classes"]:
        return self.head(self.body(volumes).flatten(start_dim=2).mean(dim=2))


def train_classifier(
    volumes: Float[np.ndarray, "item channel *space"],
    labels: Integer[np.ndarray, " item"],
    num_classes: int,
    *,
    steps: int,
    seed: int,
    batch_size: int = 128,
    progress: Callable[[int], object] = lambda steps: None,
) -> Classifier:
    """A classifier in evaluation mode, trained by cross-entropy; the same protocol for all data.

    volumes: intensities in [0, 1]; labels: 0 … num_classes − 1; progress: told of steps done.
    Equal arguments give equal weights on the CPU, and the caller's random state is left alone.
    DivergedError when the loss is not a finite number.
    """
    device = choose_device()
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Classifier(volumes.ndim - 2, volumes.shape[1], num_classes).to(device)
    optimiser = adamw(model, _WEIGHT_DECAY)
    rate = warmup_cosine(_PEAK_RATE, steps // 20, steps)
    for step in range(steps):
        chosen = batch_indices(step, batch_size, len(volumes), seed)
        for group in optimiser.param_groups:
            group["lr"] = rate(step)
        with mixed_precision(device):
            logits = model(_tensor(volumes[chosen]).to(device))
        target = torch.from_numpy(labels[chosen].astype(np.int64)).to(device)
        loss = functional.cross_entropy(logits.float(), target)
        if not torch.isfinite(loss):
            raise DivergedError(f"classifier: the loss is {loss.item()} at step {step}.")
        optimiser.zero_grad(set_to_none=True)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), MAX_GRADIENT_NORM)
        optimiser.step()
        progress(1)
    return model.eval()


@torch.inference_mode()
def predict(
    model: nn.Module,
    volumes: Float[np.ndarray, "item channel *space"],
    *,
    batch_size: int = 128,
) -> Int[np.ndarray, " item"]:
    """The most likely class of each volume. `model` is in evaluation mode."""
    device = next(model.parameters()).device
    predicted = np.empty(len(volumes), np.int64)
    for start in range(0, len(volumes), batch_size):
        chunk = slice(start, start + batch_size)
        with mixed_precision(device):
            logits = model(_tensor(volumes[chunk]).to(device))
        predicted[chunk] = logits.float().argmax(dim=1).cpu().numpy()
    return predicted


def accuracy(
    predicted: Integer[np.ndarray, " item"], labels: Integer[np.ndarray, " item"]
) -> float:
    """Share of items whose class is right, 0 to 1; higher is better. NaN for no items."""
    return float(np.mean(predicted == labels)) if len(labels) else float("nan")


def _tensor(
    volumes: Float[np.ndarray, "item channel *space"],
) -> Float[Tensor, "item channel *space"]:
    return torch.from_numpy(np.ascontiguousarray(volumes, np.float32))
