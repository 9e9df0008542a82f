"""The pieces of encoder and decoder; every one works in 2D and 3D alike."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vqmri.convolution import convolution
from vqmri.shapes import Features

GROUPS = 8


def same(spatial_dims: int, in_channels: int, out_channels: int, kernel: int = 3) -> nn.Module:
    """A convolution that keeps the grid's size (`kernel` is odd)."""
    return convolution(spatial_dims, in_channels, out_channels, kernel, padding=kernel // 2)


def space_to_depth(x: Features) -> Float[Tensor, "batch deep *coarse"]:
    """Move each 2×2(×2) block of positions into channels: (b, c, *n) to (b, c·2^d, *(n/2))."""
    dims = x.ndim - 2
    batch, channel, *space = x.shape
    split = [size for n in space for size in (n // 2, 2)]
    x = x.reshape(batch, channel, *split)
    grid_axes, block_axes = range(2, 2 + 2 * dims, 2), range(3, 3 + 2 * dims, 2)
    x = x.permute(0, 1, *block_axes, *grid_axes)
    return x.reshape(batch, channel * 2**dims, *(n // 2 for n in space))


def depth_to_space(x: Features) -> Float[Tensor, "batch shallow *fine"]:
    """Undo `space_to_depth`: (b, c·2^d, *n) to (b, c, *(2n)).

    Sub-pixel upsampling (Shi et al. 2016, arXiv:1609.05158) leaves no checkerboard, as transposed
    convolutions do.
    """
    dims = x.ndim - 2
    batch, channel, *grid = x.shape
    x = x.reshape(batch, channel // 2**dims, *[2] * dims, *grid)
    order = [axis for i in range(dims) for axis in (2 + dims + i, 2 + i)]
    x = x.permute(0, 1, *order)
    return x.reshape(batch, channel // 2**dims, *(2 * n for n in grid))


class Residual(nn.Module):
    """x + body(x), the body being the layers one after the other.

    recompute: keep the input alone for the backward pass and compute the rest once more there
    """

    recompute = False

    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(*layers)

    def forward(self, x: Features) -> Features:
        if self.recompute and torch.is_grad_enabled():
            return x + checkpoint(self.body, x, use_reentrant=False, preserve_rng_state=False)
        return x + self.body(x)


class ResidualBlock(Residual):
    """x + conv1(silu(norm(conv3(silu(norm(x)))))), conv1 and conv3 with kernels of 1 and 3 voxels.

    The block of VQ-VAE (van den Oord et al. 2017), with group norm, which is safe at batch 1. A
    second kernel of 3 costs as much as a whole block more and gives less than that.
    """

    def __init__(self, spatial_dims: int, channels: int) -> None:
        layers = [
            layer
            for kernel in (3, 1)
            for layer in (
                nn.GroupNorm(GROUPS, channels),
                nn.SiLU(),
                same(spatial_dims, channels, channels, kernel),
            )
        ]
        super().__init__(*layers)


class PointwiseBlock(Residual):
    """x + conv1(silu(conv1(norm(x)))): a net for each position alone.

    At a fine scale, where a kernel of 3 voxels is dear, it is what makes of the change of scale
    more than a linear map.
    """

    def __init__(self, spatial_dims: int, channels: int) -> None:
        super().__init__(
            nn.GroupNorm(GROUPS, channels),
            same(spatial_dims, channels, channels, 1),
            nn.SiLU(),
            same(spatial_dims, channels, channels, 1),
        )


class Down(nn.Module):
    """Halve the grid: space to depth and a 1×1 convolution, that is a strided 2×2(×2) one.

    A 3×3×3 kernel here costs as much as a whole residual block at the coarser scale and gained
    nothing measurable; the residual blocks that follow see the neighbourhood.
    """

    def __init__(self, spatial_dims: int, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = same(spatial_dims, in_channels * 2**spatial_dims, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(space_to_depth(x))


class Up(nn.Module):
    """Double the grid: a convolution, then depth to space."""

    def __init__(
        self, spatial_dims: int, in_channels: int, out_channels: int, kernel: int = 1
    ) -> None:
        super().__init__()
        self.conv = same(spatial_dims, in_channels, out_channels * 2**spatial_dims, kernel)

    def forward(self, x: Tensor) -> Tensor:
        return depth_to_space(self.conv(x))


def blocks_of_scale(spatial_dims: int, channels: int, num_res_blocks: int) -> list[nn.Module]:
    """What a scale consists of, for a Sequential: a pointwise block and then the residual ones."""
    residual = [ResidualBlock(spatial_dims, channels) for _ in range(num_res_blocks)]
    return [PointwiseBlock(spatial_dims, channels), *residual]
