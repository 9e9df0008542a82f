"""Exact incremental sampling: all positions together cost the work of about one forward pass.

Each layer's streams at earlier positions never change, so they are kept, and only what is new is
computed. With the axes (plane, row, voxel), or (row, voxel) in 2D:

    entering a plane   the plane stream of that plane, all layers, from the planes before it
    entering a row     the row stream of that row, from the rows before it and the plane's links
    at a voxel         the voxel stream, from the voxels before it: one product per layer and gate

Links from outer streams and the condition are folded into one additive term per position. Attention
keeps one key and value per position; they hold the code, so they are made when it is accepted.
Planes are PyTorch's (`plane_stream`), rows and voxels a compiled loop (`plane_loop`), whose samples
are spread over as many threads as PyTorch uses.
"""

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from vqmri.prior.pixelcnn import PixelCNN
from vqmri.prior.plane_loop import Memory, Terms, Weights, draw_plane
from vqmri.prior.plane_stream import PlaneStream
from vqmri.prior.sampler import Task


def cached(task: Task, logits: np.ndarray | None = None) -> Int[Tensor, "sample *grid"]:
    """Draw a map on the CPU.

    logits: (sample, way, *grid, num_embeddings), where to write them; they are the reference's up
        to rounding
    """
    net, count, ways = task.net, len(task.given), task.ways
    context = net.context(task.grid[0], task.condition)
    stream = PlaneStream(net, context, ways * count)
    weights = row_weights(net)
    memory = _memory(net, ways * count)
    codes = task.start().reshape(count, task.num_planes, *task.slab)
    embedded = np.zeros((ways * count, *task.slab, context.shape[1]), weights.row.dtype)
    shape = (count, ways, *task.slab, len(weights.logits_bias))
    found = np.empty(shape if logits is not None else (0,) * 5, weights.row.dtype)
    threads = min(torch.get_num_threads(), count)
    samples = [(count * i // threads, count * (i + 1) // threads) for i in range(threads)]
    with ThreadPoolExecutor(threads) as pool:
        for plane in range(task.num_planes):
            before = torch.from_numpy(embedded) if plane else None
            chosen = codes[:, plane].copy()
            run = partial(
                draw_plane,
                weights,
                Terms(*(term.numpy() for term in stream.terms(plane, before))),
                memory,
                stream.context(plane).numpy(),
                task.noise(),
                task.choice.plain,
                chosen,
                embedded,
                found,
                plane * math.prod(task.slab),
                task.given.shape[1],
            )
            for _ in pool.map(run, samples):
                pass
            codes[:, plane] = chosen
            if logits is not None:
                logits.reshape(count, ways, task.num_planes, *found.shape[2:])[:, :, plane] = found
            task.progress(math.prod(task.slab))
    return torch.from_numpy(codes.reshape(count, *task.grid))


def row_weights(net: PixelCNN) -> Weights:
    """The weights that the loop over rows and voxels takes."""
    layers: list[Any] = list(net.layers)
    attentions: list[Any] = list(net.attentions.values())
    names = list(net.attentions)
    follows = [names.index(str(i)) if str(i) in names else -1 for i in range(len(layers))]
    head, logits = (module for module in net.head if hasattr(module, "weight"))
    none = net.position.new_zeros(0, 1, 1)  # in place of attentions where there are none
    asking = [_matrix(x.query) for x in attentions] or none
    holding = [torch.cat([_matrix(x.key), _matrix(x.value)], 1) for x in attentions] or none
    return Weights(
        row=_array([_window(x.convs[-2], 2).flatten(0, 2) for x in layers]),
        row_link=_array([_matrix(x.links[-1][-1]) for x in layers]),
        voxel=_array([_window(x.convs[-1], 1).flatten(0, 1) for x in layers]),
        out=_array([torch.cat([_matrix(x.residual), _matrix(x.skip)], 1) for x in layers]),
        out_bias=_array([torch.cat([x.residual.bias, x.skip.bias]) for x in layers]),
        head=_array(_matrix(head)),
        head_bias=_array(head.bias),
        logits=_array(_matrix(logits)),
        logits_bias=_array(logits.bias),
        embedding=_array(net.embedding.weight),
        attention=np.array(follows),
        query=_array(asking),
        query_bias=_array([x.query.bias for x in attentions] or none[..., 0]),
        held=_array(holding),
        held_bias=_array(
            [torch.cat([x.key.bias, x.value.bias]) for x in attentions] or none[..., 0]
        ),
        attended=_array([_matrix(x.out) for x in attentions] or none),
    )


def _memory(net: PixelCNN, items: int) -> Memory:
    """Keys and values of no position yet, but for the null one."""
    attentions: list[Any] = list(net.attentions.values())
    heads = attentions[0].heads if attentions else 1
    positions = math.prod(net.position.shape[2:]) + 1 if attentions else 0
    part = net.embedding.embedding_dim // heads
    keys = net.position.new_zeros(items, len(attentions), heads, part, positions)
    return Memory(_array(keys), _array(keys.clone()))


def _window(convolution: Any, axes: int) -> Tensor:
    """A convolution over the last `axes`: (*window, channels, 2·channels)."""
    weight = convolution.weight
    return weight.reshape(*weight.shape[:2], *weight.shape[-axes:]).movedim((1, 0), (-2, -1))


def _matrix(convolution: Any) -> Tensor:
    """A 1×1 convolution: (in, out)."""
    return convolution.weight.flatten(1).T


def _array(tensors: Tensor | Sequence[Tensor]) -> np.ndarray:
    tensor = tensors if isinstance(tensors, Tensor) else torch.stack(list(tensors))
    return np.ascontiguousarray(tensor.detach().numpy())
