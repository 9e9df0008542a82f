"""A causal PixelCNN in 2D and 3D, without a blind spot and without masked weights."""

from collections.abc import Sequence
from functools import partial

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional

from vqmri.convolution import convolution
from vqmri.prior.attention import CausalAttention, attention_after
from vqmri.prior.causal import causal_pad, kernel_size, shift
from vqmri.shapes import Codes, Features, Logits


def gate(x: Features) -> Float[Tensor, "batch half *grid"]:
    """tanh u · σ(w) for the two halves u, w of the channels (van den Oord et al. 2016b, eq. 2)."""
    value, opening = x.chunk(2, dim=1)
    return torch.tanh(value) * torch.sigmoid(opening)


class CausalLayer(nn.Module):
    """One layer of all streams: convolve each, feed earlier streams into later ones, gate.

    Stream a before its gate is W_a ⋆ s_a + Σ_{b<a} L_ab · (stream b before its gate) + condition.
    Every stream becomes its gated self; the last one, which alone is read out, is residual.
    """

    def __init__(
        self, spatial_dims: int, channels: int, kernel: int, radius: int, dropout: float
    ) -> None:
        super().__init__()
        conv = partial(convolution, spatial_dims)
        self.kernel, self.radius = kernel, radius
        self.convs = nn.ModuleList(
            conv(channels, 2 * channels, kernel_size(axis, spatial_dims, kernel, radius))
            for axis in range(spatial_dims)
        )
        self.links = nn.ModuleList(
            nn.ModuleList(conv(2 * channels, 2 * channels, bias=False) for _ in range(axis))
            for axis in range(spatial_dims)
        )
        self.conditions = nn.ModuleList(
            conv(channels, 2 * channels, bias=False) for _ in range(spatial_dims)
        )
        self.residual = conv(channels, channels)
        self.skip = conv(channels, channels)
        self.dropout = nn.Dropout(dropout)

    def forward(self, streams: Sequence[Tensor], condition: Tensor) -> tuple[list[Tensor], Tensor]:
        """New streams and this layer's share of the read-out, all (batch, channels, *grid)."""
        sums: list[Tensor] = []
        outs: list[Tensor] = []
        for axis, stream in enumerate(streams):
            links = self.links[axis]
            assert isinstance(links, nn.ModuleList)
            total = self.convs[axis](causal_pad(stream, axis, self.kernel, self.radius))
            for link, earlier in zip(links, sums, strict=True):
                total = total + link(earlier)
            sums.append(total)
            outs.append(gate(total + self.conditions[axis](condition)))
        gated = self.dropout(outs[-1])
        outs[-1] = streams[-1] + self.residual(gated)
        return outs, self.skip(gated)


class PixelCNN(nn.Module):
    """p(codes) as a product of categorical distributions in raster order.

    van den Oord et al. 2016 (arXiv:1606.05328), with one stream per axis as `causal` explains.
    A learned embedding of the position joins the condition of every layer: scans are aligned, so
    where a code stands says much about it. So does how strongly a condition acts there: age moves
    the ventricles and not the neck.

    num_embeddings: values of a code
    grid: positions per axis, 2 or 3 axes
    channels: width of every stream, a multiple of `heads`
    kernel, radius: positions that a layer sees along a stream's own axis, and to either side along
        the axes after it
    dropout: share of the units, and of the embedded codes, that are hidden in training
    condition_channels: channels of a conditioning map on the same grid, 0 for none
    num_attention: layers that a causal self-attention of `heads` heads follows, spread evenly
    """

    def __init__(
        self,
        *,
        num_embeddings: int,
        grid: Sequence[int],
        channels: int,
        num_layers: int,
        kernel: int,
        radius: int,
        dropout: float,
        condition_channels: int = 0,
        num_attention: int = 0,
        heads: int = 1,
    ) -> None:
        super().__init__()
        dims = len(grid)
        conv = partial(convolution, dims)
        self.embedding = nn.Embedding(num_embeddings, channels)
        self.dropout = dropout
        self.heads = heads
        self.position = nn.Parameter(torch.zeros(1, channels, *grid))
        self.condition = conv(condition_channels, channels) if condition_channels else None
        self.reach = nn.Parameter(torch.zeros(1, channels, *grid)) if condition_channels else None
        self.layers = nn.ModuleList(
            CausalLayer(dims, channels, kernel, radius, dropout) for _ in range(num_layers)
        )
        self.attentions = nn.ModuleDict(
            {
                str(layer): CausalAttention(dims, channels, heads, dropout)
                for layer in attention_after(num_layers, num_attention)
            }
        )
        self.head = nn.Sequential(
            nn.SiLU(), conv(channels, 2 * channels), nn.SiLU(), nn.Dropout(dropout),
            conv(2 * channels, num_embeddings),
        )  # fmt: skip

    def forward(self, codes: Codes, condition: Features | None = None) -> Logits:
        """Logits of every position given the positions before it (and the condition at all).

        `codes` may be the first planes of the grid only (`condition` too): causality makes the
        logits of those planes the same as for the whole grid.
        """
        embedded = self.embedding(codes).movedim(-1, 1)
        if self.training:  # hide whole codes, so that no single neighbour can be relied on
            shown = torch.ones_like(embedded[:, :1])
            embedded = embedded * functional.dropout(shown, self.dropout)
        context = self.context(codes.shape[1], condition).expand_as(embedded)
        streams = [shift(embedded, axis) for axis in range(codes.ndim - 1)]
        skips = torch.zeros_like(embedded)
        for index, layer in enumerate(self.layers):
            streams, skip = layer(streams, context)
            skips = skips + skip
            if str(index) in self.attentions:
                attention = self.attentions[str(index)]
                streams[-1] = streams[-1] + attention(streams[-1], embedded, context)
        return self.head(skips)

    def context(
        self, planes: int, condition: Features | None
    ) -> Float[Tensor, "any channel *grid"]:
        """What every layer is told of each position of the first planes."""
        position = self.position[:, :, :planes]
        if self.condition is None or self.reach is None:
            return position
        return position + (1 + self.reach[:, :, :planes]) * self.condition(condition)
