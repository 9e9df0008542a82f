"""Exact incremental logits: all positions together cost the work of about one forward pass.

Each layer's streams at earlier positions never change, so they are kept, and only what is new is
computed. With the axes (plane, row, voxel), or (row, voxel) in 2D:

    entering a plane   the plane stream of that plane, all layers, from the planes before it
    entering a row     the row stream of that row, from the rows before it and the plane's links
    at a voxel         the voxel stream, from the voxels before it: one product per layer and gate

Links from outer streams and the condition are folded into one additive term per row. Attention
keeps one key and value per position; they hold the code, so they are made when it is accepted.
"""

from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn import functional

from vqmri.prior.pixelcnn import PixelCNN, gate
from vqmri.prior.sampler import Stepper, of_all


class Incremental(Stepper):
    """A stepper that gives the logits of the reference up to rounding; positions in raster order.

    net: in evaluation mode
    condition: (batch, feature, *grid) or None, as for the net
    """

    def __init__(self, net: PixelCNN, condition: Tensor | None, batch: int) -> None:
        self._net = net
        self._grid = tuple(net.position.shape[2:])
        context = net.context(self._grid[0], condition)
        self._context = context.expand(batch, *context.shape[1:])
        self._embedded = torch.zeros_like(self._context)
        layers = list(net.layers)
        outer = range(len(self._grid) - 1)
        self._streams = [_Stream(layers, axis, self._context) for axis in outer]
        self._voxels = [_VoxelLayer(layer, batch, self._grid[-1]) for layer in layers]
        self._attentions = {
            int(layer): _Attention(module, self._context)
            for layer, module in net.attentions.items()
        }
        self._head = [_matrix(module) for module in net.head if hasattr(module, "weight")]

    def logits(self, position: tuple[int, ...]) -> Float[Tensor, "batch num_embeddings"]:
        """Logits of the next position."""
        for axis, stream in enumerate(self._streams):
            if not any(position[axis + 1 :]):  # the first position of this slab
                stream.enter(position[: axis + 1], self._embedded, self._streams[:axis])
        if position[-1] == 0:
            self._enter_row(position[:-1])
        here = self._context[of_all(position)]
        if position[-1] > 0:
            x = self._embedded[of_all((*position[:-1], position[-1] - 1))]
        else:
            x = torch.zeros_like(here)
        skips: Tensor | None = None
        for index, layer in enumerate(self._voxels):
            x, skip = layer.step(x, position[-1])
            skips = skip if skips is None else skips + skip
            if index in self._attentions:
                x = x + self._attentions[index].step(x, here)
        assert skips is not None
        for weight, bias in self._head:
            skips = torch.addmm(bias, functional.silu(skips), weight)
        return skips

    def accept(self, position: tuple[int, ...], codes: Int[Tensor, " batch"]) -> None:
        """Embed the codes of the position, and let the attentions hold them."""
        vector = self._net.embedding(codes)
        self._embedded[of_all(position)] = vector
        for attention in self._attentions.values():
            attention.hold(vector)

    def _enter_row(self, row: tuple[int, ...]) -> None:
        """The additive term of the voxel stream for a whole row."""
        last = len(self._grid) - 1
        context = self._context[of_all(row)]
        for index, layer in enumerate(self._voxels):
            links = [stream.link(last, index, row) for stream in self._streams]
            layer.enter(context, links)


class _Stream:
    """An outer stream: its last `kernel` slabs for every layer, and what it links to later streams.

    A slab is what lies behind one index of the stream's own axis: a plane in 3D, or a row.
    """

    def __init__(self, layers: list[Any], axis: int, context: Tensor) -> None:
        self._layers, self._axis, self._context = layers, axis, context
        self._windows: list[Tensor] = []
        self._links: list[dict[int, Tensor]] = [{} for _ in layers]

    def enter(self, index: tuple[int, ...], embedded: Tensor, outer: list["_Stream"]) -> None:
        """Compute the slab at `index` (own axis last) for all layers."""
        context = self._context[of_all(index)]
        before = (*index[:-1], index[-1] - 1)
        slab = embedded[of_all(before)] if index[-1] else context * 0
        if index[-1] == 0:
            shape = (*slab.shape[:2], self._layers[0].kernel, *slab.shape[2:])
            self._windows = [slab.new_zeros(shape) for _ in self._layers]
        for number, layer in enumerate(self._layers):
            window = torch.cat([self._windows[number][:, :, 1:], slab.unsqueeze(2)], dim=2)
            self._windows[number] = window
            total = self._convolve(layer, window)
            for stream in outer:
                total = total + stream.link(self._axis, number, index)
            self._keep_links(layer, number, total)
            slab = gate(total + _pointwise(layer.conditions[self._axis], context))

    def link(self, axis: int, number: int, index: tuple[int, ...]) -> Tensor:
        """What layer `number` of the stream of a later `axis` gets, at the slab of `index`."""
        return self._links[number][axis][of_all(index[self._axis + 1 :])]

    def _convolve(self, layer: Any, window: Tensor) -> Tensor:
        """The layer's convolution at the newest slab: (batch, 2·channels, *slab)."""
        dims = window.ndim - 3
        padded = functional.pad(window, [layer.radius] * (2 * dims))
        module = layer.convs[self._axis]
        weight = module.weight.flatten(2, 1 + self._axis) if self._axis else module.weight
        weight = weight.reshape(*weight.shape[:2], *module.weight.shape[2 + self._axis :])
        convolve = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}[dims + 1]
        return convolve(padded, weight, module.bias).squeeze(2)

    def _keep_links(self, layer: Any, number: int, total: Tensor) -> None:
        for axis in range(self._axis + 1, len(layer.convs)):
            self._links[number][axis] = _pointwise(layer.links[axis][self._axis], total)


class _VoxelLayer:
    """One layer of the voxel stream: its input at every voxel of the row, and the row's term."""

    def __init__(self, layer: Any, batch: int, length: int) -> None:
        self._layer = layer
        convolution = layer.convs[-1]
        channels, self._kernel = convolution.weight.shape[1], layer.kernel
        weight = convolution.weight.reshape(2 * channels, channels, self._kernel)
        self._weight = weight.permute(2, 1, 0).reshape(self._kernel * channels, 2 * channels)
        self._bias = convolution.bias
        (residual, residual_bias), (skip, skip_bias) = (
            _matrix(module) for module in (layer.residual, layer.skip)
        )
        self._out = torch.cat([residual, skip], dim=1)
        self._out_bias = torch.cat([residual_bias, skip_bias])
        self._row = weight.new_zeros(batch, length + self._kernel - 1, channels)
        self._term = weight.new_zeros(length, batch, 2 * channels)

    def enter(self, context: Tensor, links: list[Tensor]) -> None:
        """Begin a row; `context` and `links` are (batch, …, voxel)."""
        term = _pointwise(self._layer.conditions[-1], context)
        for link in links:
            term = term + link
        self._term = (term + self._bias[:, None]).permute(2, 0, 1).contiguous()
        self._row.zero_()

    def step(self, x: Tensor, index: int) -> tuple[Tensor, Tensor]:
        """The stream after this layer at a voxel, and its share of the read-out."""
        self._row[:, index + self._kernel - 1] = x
        window = self._row[:, index : index + self._kernel].flatten(1)
        gated = gate(torch.addmm(self._term[index], window, self._weight))
        residual, skip = torch.addmm(self._out_bias, gated, self._out).chunk(2, dim=1)
        return x + residual, skip


class _Attention:
    """Keys and values of the positions so far, the null one first."""

    def __init__(self, module: Any, context: Tensor) -> None:
        self._heads = module.heads
        self._query, self._key, self._value = (
            _matrix(m) for m in (module.query, module.key, module.value)
        )
        self._out = module.out.weight.flatten(1).T
        batch, channels = context.shape[:2]
        positions = context[0, 0].numel()
        shape = (batch, self._heads, positions + 1, channels // self._heads)
        self._keys, self._values = context.new_zeros(shape), context.new_zeros(shape)
        self._count = 1
        self._known = context.new_zeros(batch, 2 * channels)

    def step(self, stream: Tensor, context: Tensor) -> Tensor:
        """The term to add to the stream at the next position: (batch, channels)."""
        self._known = torch.cat([stream, context], dim=1)
        weight, bias = self._query
        query = torch.addmm(bias, self._known, weight).unflatten(1, (self._heads, 1, -1))
        keys, values = self._keys[:, :, : self._count], self._values[:, :, : self._count]
        rows = functional.scaled_dot_product_attention(query, keys, values)
        return rows.flatten(1) @ self._out

    def hold(self, vector: Tensor) -> None:
        """Keep the position's key and value, now that its code's embedding is known."""
        held = torch.cat([self._known, vector], dim=1)
        if self._count < self._keys.shape[2]:
            for kept, (weight, bias) in ((self._keys, self._key), (self._values, self._value)):
                row = torch.addmm(bias, held, weight).unflatten(1, (self._heads, -1))
                kept[:, :, self._count] = row
        self._count += 1


def _matrix(module: Any) -> tuple[Tensor, Tensor]:
    """Weight (in, out) and bias of a 1×1 convolution, for `addmm`."""
    return module.weight.flatten(1).T.contiguous(), module.bias


def _pointwise(module: Any, x: Tensor) -> Tensor:
    """A 1×1 convolution of whatever number of axes, on x (batch, feature, …) of fewer."""
    weight, bias = module.weight, module.bias
    out = torch.matmul(weight.flatten(1), x.flatten(2)).unflatten(2, x.shape[2:])
    return out if bias is None else out + bias.reshape(-1, *[1] * (x.ndim - 2))
