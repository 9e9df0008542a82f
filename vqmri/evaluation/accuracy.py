"""Are samples good enough to learn from? Nets that recognise, and their scores.

Classification Accuracy Score: train a classifier on samples and their labels alone and test it on
real data (Ravuri & Vinyals 2019, arXiv:1905.10887; used for VQ-VAE-2, arXiv:1906.00446). A model
that drops a class or repeats itself loses there what it may win in sharpness. The score stands
beside that of the same classifier trained on real data, its upper mark, and beside chance. Of a
number in place of a class, the same is done with a regression.
"""

from collections.abc import Callable
from typing import Any, Protocol, final, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Integer, Num
from torch import Tensor, nn
from torch.nn import functional

from vqmri.convolution import convolution
from vqmri.errors import DivergedError
from vqmri.shapes import Scalar, Volumes
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

Progress = Callable[[int], object]


@runtime_checkable
class Items(Protocol):
    """Volumes (item, channel, *space) that are read when they are asked for; an array is one."""

    @property
    def shape(self) -> tuple[int, ...]: ...

    def __getitem__(self, indices: list[int], /) -> np.ndarray: ...


@final
class Recogniser(nn.Module):
    """Convolutions with group norm, max pools between scales, the mean over space, a linear layer.

    One class for 2D and 3D; 117,000 parameters in 2D. Any size of volume goes, down to one voxel.
    """

    def __init__(self, spatial_dims: int, in_channels: int, num_outputs: int) -> None:
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
        self.head = nn.Linear(before, num_outputs)

    def forward(self, volumes: Volumes) -> Float[Tensor, "batch output"]:
        return self.head(self.body(volumes).flatten(start_dim=2).mean(dim=2))


def train_recogniser(
    volumes: Items,
    targets: Num[np.ndarray, " item"],
    num_classes: int,
    *,
    steps: int,
    seed: int,
    batch_size: int = 128,
    progress: Progress = lambda steps: None,
) -> Recogniser:
    """A recogniser in evaluation mode; the same protocol for all data.

    volumes: intensities in [0, 1]; progress: told of steps done
    targets: classes 0 … num_classes − 1, learnt by cross-entropy; with num_classes 0 standardised
        values, by squared error
    Equal arguments give equal weights on the CPU, and the caller's random state is left alone.
    DivergedError when the loss is not a finite number.
    """
    device = choose_device()
    values = torch.from_numpy(targets)
    target = values.long() if num_classes else values.float().unsqueeze(1)
    criterion: Callable[..., Tensor] = (
        functional.cross_entropy if num_classes else functional.mse_loss
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = Recogniser(len(volumes.shape) - 2, volumes.shape[1], num_classes or 1).to(device)

    def loss(step: int, chosen: list[int]) -> Tensor:
        with mixed_precision(device):
            outputs = model(as_tensor(volumes[chosen]).to(device))
        return criterion(outputs.float(), target[chosen].to(device))

    minimise(loss, model, len(target), steps=steps, seed=seed, batch_size=batch_size,
             peak_rate=_PEAK_RATE, progress=progress)  # fmt: skip
    return model.eval()


def minimise(
    loss: Callable[[int, list[int]], Scalar],
    model: nn.Module,
    count: int,
    *,
    steps: int,
    seed: int,
    batch_size: int,
    peak_rate: float,
    progress: Progress,
) -> None:
    """Train with AdamW, warm-up and a cosine; `loss` is of a step and the items of its batch.

    DivergedError when the loss is not a finite number.
    """
    optimiser = adamw(model, _WEIGHT_DECAY)
    rate = warmup_cosine(peak_rate, steps // 20, steps)
    for step in range(steps):
        for group in optimiser.param_groups:
            group["lr"] = rate(step)
        value = loss(step, batch_indices(step, batch_size, count, seed))
        if not torch.isfinite(value):
            name = type(model).__name__.lower()
            raise DivergedError(
                f"{name}: the loss is {value.item()} at step {step}, so nothing can be said of the "
                "samples. Look at them and at the volumes for values that are no numbers, or set "
                "use: null in params.yaml."
            )
        optimiser.zero_grad(set_to_none=True)
        value.backward()
        nn.utils.clip_grad_norm_(model.parameters(), MAX_GRADIENT_NORM)
        optimiser.step()
        progress(1)


@torch.inference_mode()
def outputs(
    model: Recogniser, volumes: Items, *, batch_size: int = 128
) -> Float[np.ndarray, "item output"]:
    """What the net says of each volume: a logit per class, or a standardised value."""
    device = model.head.weight.device
    found = np.empty((volumes.shape[0], model.head.out_features), np.float32)
    for start in range(0, len(found), batch_size):
        chunk = list(range(start, min(start + batch_size, len(found))))
        with mixed_precision(device):
            said = model(as_tensor(volumes[chunk]).to(device))
        found[chunk] = said.float().cpu().numpy()
    return found


def accuracy(
    predicted: Integer[np.ndarray, " item"], labels: Integer[np.ndarray, " item"]
) -> float:
    """Share of items whose class is right, 0 to 1; higher is better. NaN for no items."""
    return float(np.mean(predicted == labels)) if len(labels) else float("nan")


def chance(labels: Integer[np.ndarray, " item"]) -> float:
    """Accuracy of always naming the most frequent class. NaN for no items."""
    return float(np.bincount(labels).max() / len(labels)) if len(labels) else float("nan")


def relative(score: float, real: float, chance: float) -> float:
    """(score − chance) / (real − chance): what of real data's worth the samples have.

    1: as good to learn from as real data; 0: nothing can be learnt; higher is better. NaN where
    real data teach nothing either.
    """
    return (score - chance) / (real - chance) if real > chance else float("nan")


def r_squared(
    predicted: Float[np.ndarray, " item"], values: Float[np.ndarray, " item"], mean: float
) -> float:
    """1 − Σ(y − ŷ)² / Σ(y − mean)²; at most 1, 0 for always guessing the mean; higher is better.

    mean: of the training values, so that it is chance (Campbell & Thompson 2008, equation 1).
    NaN where all values equal it.
    """
    spread = float(np.square(values - mean).sum())
    return 1 - float(np.square(values - predicted).sum()) / spread if spread else float("nan")


def mean_absolute_error(
    predicted: Float[np.ndarray, " item"], values: Float[np.ndarray, " item"]
) -> float:
    """Mean of |y − ŷ|, in the value's unit; lower is better. NaN for no items."""
    return float(np.abs(values - predicted).mean()) if len(values) else float("nan")


def obedience(
    asked: Float[np.ndarray, " item"], seen: Float[np.ndarray, " item"]
) -> tuple[float, float]:
    """Pearson's correlation of what is seen with what was asked, and the slope of its line.

    Both are 1 where samples show what was asked for, 0 where they do not care; NaN where all were
    asked for the same. A regression's own shrinkage towards the mean is in the slope.
    """
    centred = asked - asked.mean()
    variance = float(np.square(centred).mean())
    covariance = float((centred * seen).mean())
    if not variance:
        return float("nan"), float("nan")
    spread = float(seen.std())
    return covariance / (variance**0.5 * spread) if spread else 0.0, covariance / variance


def as_tensor(
    volumes: Float[np.ndarray, "item channel *space"],
) -> Float[Tensor, "item channel *space"]:
    """A float32 tensor of them; a copy of what may not be written to."""
    return torch.from_numpy(np.array(volumes, np.float32, order="C"))
