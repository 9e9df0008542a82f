"""Causal self-attention over the positions of a code grid."""

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from vqmri.convolution import convolution
from vqmri.shapes import Features


class CausalAttention(nn.Module):
    """What the voxel stream gains from every earlier position, however far away.

    Razavi et al. 2019, §3.2, after Chen et al. 2018 (arXiv:1712.09763). Queries come from the
    stream and its condition, which know only earlier codes; keys and values hold the code itself
    too, so they must be strictly earlier. All keys are therefore moved one step forward in raster
    order, and an ordinary causal attention over them is strict. The step leaves a null key and
    value of zeros in front: position 0 attends to nothing else and gets exactly zero, and no row
    is ever fully masked (the softmax of such a row is uniform over the *future*).

    channels: of stream, embedded codes and condition; a multiple of `heads`
    """

    def __init__(self, spatial_dims: int, channels: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.query = convolution(spatial_dims, 2 * channels, channels)
        self.key = convolution(spatial_dims, 3 * channels, channels)
        self.value = convolution(spatial_dims, 3 * channels, channels)
        self.out = convolution(spatial_dims, channels, channels, bias=False)
        self.dropout = nn.Dropout(dropout)

    def forward(
        self, stream: Features, embedded: Features, condition: Features
    ) -> Float[Tensor, "batch feature *grid"]:
        """The term to add to `stream`; all (batch, channels, *grid)."""
        known = torch.cat([stream, condition], dim=1)
        held = torch.cat([known, embedded], dim=1)
        query = self._rows(self.query(known))
        key, value = self._earlier(self.key(held)), self._earlier(self.value(held))
        rows = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        return self.out(self.dropout(rows.transpose(2, 3).reshape(stream.shape)))

    def _rows(self, x: Tensor) -> Float[Tensor, "batch head position part"]:
        """Positions in raster order, channels split over the heads."""
        return x.flatten(2).unflatten(1, (self.heads, -1)).transpose(2, 3)

    def _earlier(self, x: Tensor) -> Float[Tensor, "batch head position part"]:
        """Rows moved one position forward; zeros come in, the last falls out."""
        return functional.pad(self._rows(x)[:, :, :-1], (0, 0, 1, 0))


def attention_after(num_layers: int, number: int) -> list[int]:
    """Indices of the layers that an attention follows: `number` of them, evenly, none the last."""
    return [round((i + 1) * num_layers / (number + 1)) - 1 for i in range(number)]
