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

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Bool, Float
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


def reach(
    position: Sequence[int], grid: Sequence[int], num_layers: int, kernel: int, radius: int
) -> Bool[np.ndarray, "..."]:
    """True at the positions of the grid that a PixelCNN without attention sees from `position`.

    A way back from an output leads through the streams from the last one to that of some axis a,
    and ends in the shift along a. The convolutions on it are one per layer: n_a ≥ 1 in stream a,
    n_b ≥ 0 in each stream b after it. What it can end at, seen from the output, is

        on axes before a   at the same place
        on axis a          1 to 1 + (kernel − 1) n_a back
        on an axis c > a   up to (kernel − 1) n_c + radius (n_a + … + n_{c−1}) back,
                           up to                  radius (n_a + … + n_{c−1}) ahead

    cut off at the edges, and the reach is the union of these boxes over a and n.
    """
    seen = np.zeros(tuple(grid), dtype=bool)
    for axis, counts in _ways(len(grid), num_layers):
        box = [slice(place, place + 1) for place in position[:axis]]
        place = position[axis]
        box.append(slice(max(0, place - 1 - (kernel - 1) * counts[0]), place))
        for index, place in enumerate(position[axis + 1 :], start=1):
            around = radius * sum(counts[:index])
            back = (kernel - 1) * counts[index] + around
            box.append(slice(max(0, place - back), place + around + 1))
        seen[tuple(box)] = True
    return seen


def _ways(spatial_dims: int, num_layers: int) -> Iterator[tuple[int, list[int]]]:
    """The axis of the first stream, and how many layers are spent in it and in each later one."""
    for axis in range(spatial_dims):
        for later in np.ndindex(*[num_layers] * (spatial_dims - axis - 1)):
            if sum(later) < num_layers:
                yield axis, [num_layers - sum(later), *later]
