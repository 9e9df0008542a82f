"""Convolutions in 2D and 3D by one name."""

from typing import Any

from torch import nn

_KINDS: dict[int, Any] = {2: nn.Conv2d, 3: nn.Conv3d}


def convolution(
    spatial_dims: int,
    in_channels: int,
    out_channels: int,
    kernel: int | tuple[int, ...] = 1,
    *,
    padding: int = 0,
    bias: bool = True,
) -> nn.Module:
    """A plain convolution with `spatial_dims` axes; no weight of it is ever masked."""
    module: nn.Module = _KINDS[spatial_dims](
        in_channels, out_channels, kernel, padding=padding, bias=bias
    )
    return module
