"""Shifts and causal padding: all that makes the prior causal. No weight is ever masked.

Positions are ordered as in a raster: (x, y, z) with the last axis fastest. One *stream* per axis
carries what its positions may know. At output position p, with · for "anywhere on the grid":

    stream 0 (planes)   sees (x' < x, ·, ·)
    stream 1 (rows)     sees stream 0's, and (x, y' < y, ·)
    stream 2 (voxels)   sees stream 1's, and (x, y, z' < z)

A shift by one along the stream's own axis sets this up ("mask A"); convolutions that look only
backwards along that axis, both ways along later axes and not at all along earlier ones keep it.
In 2D the first stream falls away.
"""

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from vqmri.shapes import Features


def _pad(x: Tensor, widths: list[tuple[int, int]]) -> Tensor:
    """Zero padding, (before, after) per spatial axis in order."""
    return functional.pad(x, [width for pair in reversed(widths) for width in pair])


def shift(x: Features, axis: int) -> Features:
    """Move every entry one step forward along spatial `axis`; zeros come in, the last falls out."""
    widths = [(0, 0)] * (x.ndim - 2)
    widths[axis] = (1, 0)
    return _pad(x, widths).narrow(axis + 2, 0, x.shape[axis + 2])


def kernel_size(axis: int, spatial_dims: int, kernel: int, radius: int) -> tuple[int, ...]:
    """Kernel of the stream of `axis`: 1 before it, `kernel` along it, 2·radius+1 after it."""
    return (1,) * axis + (kernel,) + (2 * radius + 1,) * (spatial_dims - axis - 1)


def causal_pad(
    x: Features, axis: int, kernel: int, radius: int
) -> Float[Tensor, "batch feature *padded"]:
    """Pad for the convolution of the stream of `axis`, so that it sees no later position."""
    dims = x.ndim - 2
    widths = [(0, 0)] * axis + [(kernel - 1, 0)] + [(radius, radius)] * (dims - axis - 1)
    return _pad(x, widths)
