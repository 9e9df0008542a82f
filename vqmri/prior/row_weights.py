"""The weights of a PixelCNN's row and voxel streams, laid out for vectors on their left."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from vqmri.prior.pixelcnn import PixelCNN


class RowWeights(NamedTuple):
    """Of all layers side by side; tensors, or arrays for the compiled loop."""

    row: Any  # (layer, kernel·(2·radius + 1)·channels, 2·channels)
    row_link: Any  # (layer, 2·channels, 2·channels): from the row stream to the voxel stream
    voxel: Any  # (layer, kernel·channels, 2·channels)
    out: Any  # (layer, channels, 2·channels): residual and skip
    out_bias: Any  # (layer, 2·channels)
    head: Any  # (channels, 2·channels)
    head_bias: Any
    logits: Any  # (2·channels, num_embeddings)
    logits_bias: Any
    embedding: Any  # (num_embeddings, channels)
    attention: Any  # (layer,) int: which attention follows, −1 for none
    query: Any  # (attention, 2·channels, channels)
    query_bias: Any
    held: Any  # (attention, 3·channels, 2·channels): keys and values
    held_bias: Any
    attended: Any  # (attention, channels, channels)


def row_weights(net: PixelCNN) -> RowWeights:
    """The weights as contiguous tensors on the device of the net."""
    layers: list[Any] = list(net.layers)
    attentions: list[Any] = list(net.attentions.values())
    names = list(net.attentions)
    follows = [names.index(str(i)) if str(i) in names else -1 for i in range(len(layers))]
    head, logits = (module for module in net.head if hasattr(module, "weight"))
    weights = RowWeights(
        row=_stack([_window(x.convs[-2], 2).flatten(0, 2) for x in layers]),
        row_link=_stack([_matrix(x.links[-1][-1]) for x in layers]),
        voxel=_stack([_window(x.convs[-1], 1).flatten(0, 1) for x in layers]),
        out=_stack([_beside(_matrix(x.residual), _matrix(x.skip)) for x in layers]),
        out_bias=_stack([_beside(x.residual.bias, x.skip.bias) for x in layers]),
        head=_matrix(head).contiguous(),
        head_bias=head.bias,
        logits=_matrix(logits).contiguous(),
        logits_bias=logits.bias,
        embedding=net.embedding.weight,
        attention=torch.tensor(follows),
        query=_stack([_matrix(x.query) for x in attentions], 2),
        query_bias=_stack([x.query.bias for x in attentions], 1),
        held=_stack([_beside(_matrix(x.key), _matrix(x.value)) for x in attentions], 2),
        held_bias=_stack([_beside(x.key.bias, x.value.bias) for x in attentions], 1),
        attended=_stack([_matrix(x.out) for x in attentions], 2),
    )
    dtype = net.position.dtype
    return RowWeights(
        *(w.detach().to(dtype if w.is_floating_point() else w.dtype) for w in weights)
    )


def _window(convolution: Any, axes: int) -> Tensor:
    """A convolution over the last `axes`: (*window, channels, 2·channels)."""
    weight = convolution.weight
    return weight.reshape(*weight.shape[:2], *weight.shape[-axes:]).movedim((1, 0), (-2, -1))


def _matrix(convolution: Any) -> Tensor:
    """A 1×1 convolution: (in, out)."""
    return convolution.weight.flatten(1).T


def _beside(*tensors: Tensor) -> Tensor:
    return torch.cat(tensors, dim=-1)


def _stack(tensors: Sequence[Tensor], axes: int = 0) -> Tensor:
    """One tensor of all; without any, an empty one of so many axes more."""
    return torch.stack(list(tensors)) if tensors else torch.zeros(0, *[1] * axes)
