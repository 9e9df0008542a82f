"""MONAI's resampling, in a room of its own: to import MONAI takes longer than to ingest a brain."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from monai.data.meta_tensor import MetaTensor
from monai.transforms import ResampleToMatch, Spacing

Channels = Float[np.ndarray, "channel x y z"]
Affine = Float[np.ndarray, "4 4"]


def to_spacing(
    data: Channels, affine: Affine, spacing: Sequence[float], mode: str
) -> tuple[Float[np.ndarray, "channel a b c"], Affine]:
    """Voxels of this size in mm, at right angles, in the same place; at the border they go on.

    mode: "bilinear", which is linear along all axes, or "nearest"
    """
    image: Any = Spacing(pixdim=tuple(spacing), mode=mode, padding_mode="border")(
        _tensor(np.ascontiguousarray(data), affine)
    )
    return image.as_tensor().numpy(), image.affine.numpy().astype(np.float64)


def to_grid(
    data: Channels, affine: Affine, shape: Sequence[int], grid: Affine
) -> Float[np.ndarray, "channel a b c"]:
    """Linearly, where a grid of this shape and affine has its voxels; at the border they go on."""
    resample = ResampleToMatch(mode="bilinear", padding_mode="border")
    target = _tensor(np.zeros((1, *shape), np.float32), grid)
    found: Any = resample(_tensor(data, affine), img_dst=target)
    return found.numpy().astype(np.float32, copy=False)


def _tensor(data: np.ndarray, affine: np.ndarray) -> Any:
    return MetaTensor(torch.from_numpy(data), affine=torch.from_numpy(affine))
