"""Convolutions in 2D and 3D by one name."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, final

import torch
from torch import Tensor, nn
from torch.nn import functional


@final
class _Conv3d(nn.Conv3d):
    """nn.Conv3d with a right weight gradient on two planes.

    Where the processor computes in bfloat16 (AVX-512, PyTorch 2.13), the weight gradient of a
    padded 3×3×3 convolution over exactly two planes is infinite or wrong; padded beforehand it is
    right, and so is every other size.
    """

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002  (nn.Conv3d's own name)
        if input.shape[2] != 2 or not any(self.padding):
            return super().forward(input)
        widths = [int(width) for width in self.padding[::-1] for _ in range(2)]
        return functional.conv3d(functional.pad(input, widths), self.weight, self.bias)


_KINDS: dict[int, Any] = {2: nn.Conv2d, 3: _Conv3d}


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
    return _KINDS[spatial_dims](in_channels, out_channels, kernel, padding=padding, bias=bias)


@contextmanager
def without_tf32() -> Iterator[None]:
    """cuDNN's convolutions with all 23 bits; its default keeps 10, which would change codes."""
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        yield
