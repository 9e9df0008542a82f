"""What a plane's rows and voxels are given before any of their codes is known.

In 3D that is the outer stream, computed a plane at a time from the planes before it, as 2D
convolutions whose features are those of `kernel` planes side by side. In 2D there is one plane and
no such stream.
"""

from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional

from vqmri.prior.pixelcnn import PixelCNN, gate

Plane = Float[Tensor, "item row voxel feature"]
Terms = Float[Tensor, "layer item row voxel 2 double"]
SharedTerms = Float[Tensor, "layer _ row voxel 2 double"]


class PlaneStream:
    """Planes in order.

    net: in evaluation mode
    context: (item or 1, channels, *grid), as `PixelCNN.context` gives it
    """

    def __init__(self, net: PixelCNN, context: Tensor, items: int) -> None:
        layers: list[Any] = list(net.layers)
        self._layers, self._items = layers, items
        context = context.movedim(1, -1)
        self._is_deep = context.ndim == 5
        self._context = context if self._is_deep else context.unsqueeze(1)
        if self._is_deep:
            *slab, channels = self._context.shape[2:]
            shape = (items, *slab, layers[0].kernel * channels)
            self._windows = [context.new_zeros(shape) for _ in layers]
            self._convolutions = [_folded(layer.convs[0]) for layer in layers]
            self._links = [_stacked([link[0] for link in layer.links[1:]]) for layer in layers]
        self._conditions = [_stacked(list(layer.conditions)) for layer in layers]
        self._biases = [torch.stack([c.bias for c in layer.convs[-2:]]) for layer in layers]

    def context(self, plane: int) -> Plane:
        """What every layer is told of each position; the item axis is 1 where all are alike."""
        return self._context[:, plane].contiguous()

    def terms(self, plane: int, before: Plane | None) -> tuple[Terms, SharedTerms]:
        """Of `plane`, given the embedded codes of the one before, None at the first.

        What joins the row stream (first of the two) and the voxel stream: links and biases, which
        a row passes on to its voxels, and conditions, which are for the gate alone and whose item
        axis is 1 where all are alike.
        """
        context = self.context(plane)
        slab = context.new_zeros(self._items, *context.shape[1:]) if before is None else before
        double = 2 * context.shape[3]
        sums = slab.new_empty(len(self._layers), *slab.shape[:3], 2, double)
        conditions = context.new_empty(len(self._layers), *context.shape[:3], 2, double)
        for layer, biases in enumerate(self._biases):
            condition = (context @ self._conditions[layer]).unflatten(3, (-1, double))
            conditions[layer] = condition[..., -2:, :]
            if self._is_deep:
                slab = self._step(layer, slab, condition[..., 0, :], sums[layer])
            else:
                sums[layer] = biases
        return sums, conditions

    def _step(self, layer: int, slab: Tensor, condition: Tensor, sums: Tensor) -> Tensor:
        """Write the layer's links at this plane; its gated self is the next layer's input."""
        window = torch.cat([self._windows[layer][..., slab.shape[3] :], slab], dim=3)
        self._windows[layer] = window
        weight, bias = self._convolutions[layer]
        radius = self._layers[layer].radius
        # Features last in memory, first in the shape, as the convolution wants them.
        total = functional.conv2d(window.permute(0, 3, 1, 2), weight, bias, padding=radius)
        features = total.permute(0, 2, 3, 1).flatten(0, 2)
        torch.addmm(
            self._biases[layer].flatten(),
            features,
            self._links[layer],
            out=sums.flatten(0, 2).flatten(1),
        )
        return gate(total + condition.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)


def _folded(convolution: Any) -> tuple[Tensor, Tensor]:
    """The 2D weight, over `kernel` planes side by side, of a plane stream's 3D convolution."""
    weight = convolution.weight.movedim(2, 1).flatten(1, 2)
    return weight.contiguous(memory_format=torch.channels_last), convolution.bias


def _stacked(modules: Sequence[Any]) -> Tensor:
    """Weights of 1×1 convolutions side by side, (in, out), for a vector on the left."""
    return torch.cat([module.weight.flatten(1) for module in modules]).T.contiguous()
