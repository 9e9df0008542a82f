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

import itertools
import math
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import scipy.linalg  # noqa: F401  (the BLAS that compiled code calls, to be limited below)
import torch
from jaxtyping import Int
from threadpoolctl import ThreadpoolController
from torch import Tensor

from vqmri.prior.pixelcnn import PixelCNN
from vqmri.prior.plane_loop import Memory, Terms, draw_plane, scratch
from vqmri.prior.plane_stream import PlaneStream
from vqmri.prior.row_weights import RowWeights, row_weights
from vqmri.prior.sampler import Task

_LIBRARIES = ThreadpoolController()  # looked for once: that takes 3 ms


def cached(task: Task, logits: np.ndarray | None = None) -> Int[Tensor, "sample *grid"]:
    """Draw a map on the CPU.

    logits: (sample, way, *grid, num_embeddings), where to write them; they are the reference's up
        to rounding
    """
    net, count, ways = task.net, len(task.given), task.ways
    context = net.context(task.grid[0], task.condition)
    stream = PlaneStream(net, context, ways * count)
    weights = RowWeights(*(weight.numpy() for weight in row_weights(net)))
    memory = _memory(net, ways * count)
    codes = task.start().reshape(count, task.num_planes, *task.slab)
    embedded = np.zeros((ways * count, *task.slab, context.shape[1]), weights.row.dtype)
    shape = (ways * count, *task.slab, len(weights.logits_bias))
    found = np.empty(shape if logits is not None else (0,) * 4, weights.row.dtype)
    threads = min(torch.get_num_threads(), count)
    starts = [count * i // threads for i in range(threads + 1)]
    scratches = [
        scratch(weights, (stop - start) * ways, task.slab[1], math.prod(task.grid))
        for start, stop in itertools.pairwise(starts)
    ]
    # The compiled loops call BLAS for tiny products: a thread of its own is worse than none.
    with _LIBRARIES.limit(limits=1, user_api="blas"), ThreadPoolExecutor(threads) as pool:
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
            for part in scratches:
                part.rows.fill(0)
            for _ in pool.map(run, starts, scratches):
                pass
            codes[:, plane] = chosen
            if logits is not None:
                of_planes = logits.reshape(count, ways, task.num_planes, *shape[1:])
                of_planes[:, :, plane] = found.reshape(count, ways, *shape[1:])
            task.progress(math.prod(task.slab))
    return torch.from_numpy(codes.reshape(count, *task.grid))


def _memory(net: PixelCNN, items: int) -> Memory:
    """Keys and values of no position yet, but for the null one."""
    positions = math.prod(net.position.shape[2:]) + 1 if net.attentions else 0
    part = net.embedding.embedding_dim // net.heads
    keys = net.position.new_zeros(items, len(net.attentions), net.heads, part, positions)
    return Memory(keys.numpy(), keys.clone().numpy())
