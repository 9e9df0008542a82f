"""The cached sampler for a GPU: a row at a time from static buffers, replayed as one CUDA graph.

A voxel is some hundred tiny kernels, and launching them costs more than they do; a graph launches
those of a whole row at once, and a large batch is nearly free. On another device the same
operations run one by one, so that they can be tested where there is no GPU.
"""

import math
from collections.abc import Callable

import torch
from jaxtyping import Int
from torch import Tensor
from torch.nn import functional

from vqmri.prior.choice import choose_all
from vqmri.prior.pixelcnn import gate
from vqmri.prior.plane_stream import PlaneStream
from vqmri.prior.row_weights import row_weights
from vqmri.prior.sampler import Task


def graphed(task: Task) -> Int[Tensor, "sample *grid"]:
    """Draw a map on the device of the net."""
    net, count, device = task.net, len(task.given), task.net.position.device
    items = task.ways * count
    stream = PlaneStream(net, net.context(task.grid[0], task.condition), items)
    codes = torch.from_numpy(task.start()).to(device).reshape(count, -1, *task.slab)
    first, length = task.given.shape[1], task.slab[1]
    rows = _Rows(task, items)
    run = rows.captured() if device.type == "cuda" else rows.run
    embedded = None
    for plane in range(task.num_planes):
        sums, conditions = stream.terms(plane, embedded)
        context, noise = stream.context(plane), torch.from_numpy(task.noise()).to(device)
        embedded = context.new_zeros(items, *task.slab, context.shape[3])
        rows.begin_plane()
        for row in range(task.slab[0]):
            number = (plane * task.slab[0] + row) * length
            rows.sums.copy_(sums[:, :, row])
            rows.conditions.copy_(conditions[:, :, row])
            rows.context.copy_(context[:, row])
            rows.noise.copy_(noise[:, row])
            rows.codes.copy_(codes[:, plane, row])
            rows.position.fill_(number)
            rows.drawn.copy_(torch.arange(number, number + length) >= first)
            run()
            codes[:, plane, row] = rows.codes
            embedded[:, row] = rows.embedded
        task.progress(math.prod(task.slab))
    return codes.reshape(count, *task.grid)


class _Rows:
    """Buffers of fixed places, and what is done with them for one row.

    Before `run`: sums, conditions, context, noise, codes (those given), drawn (which are not) and
    the row's first position. After it: codes and their embedding, for all items.
    """

    def __init__(self, task: Task, items: int) -> None:
        net = task.net
        weights = row_weights(net)
        self._weights, self._choice, self._ways = weights, task.choice, task.ways
        layers, taps, double = weights.row.shape
        channels, length, count = double // 2, task.slab[1], len(task.given)
        kernel = weights.voxel.shape[1] // channels
        self._span, self._kernel = taps // kernel, kernel
        width = length + self._span // channels - 1
        new, long = net.position.new_zeros, torch.long
        self.sums = new(layers, items, length, 2, double)
        self.conditions = new(layers, items, length, 2, double)
        self.context = new(items, length, channels)
        self.noise = new(count, length, len(weights.embedding), dtype=torch.float32)
        self.codes = new(count, length, dtype=long)
        self.drawn = new(length, dtype=torch.bool)
        self.position = new((), dtype=long)
        self.embedded = new(items, length, channels)
        self._windows = new(layers, items, kernel, width, channels)
        self._voxels = new(layers, items, kernel - 1 + length, channels)
        self._places = torch.arange(math.prod(task.grid) + 2, device=net.position.device)
        attentions, self._heads = len(weights.query), net.heads
        self._follows = weights.attention.tolist()
        shape = (attentions, items, net.heads, len(self._places), channels // net.heads)
        self._keys, self._values = new(shape), new(shape)

    def begin_plane(self) -> None:
        """Forget the rows of the plane before."""
        self._windows.zero_()
        self.embedded.zero_()

    def captured(self) -> Callable[[], None]:
        """`run` as a CUDA graph; what the warm-up leaves in the buffers is written over."""
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                self.position.zero_()  # a small grid has no places for three rows
                self.run()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.run()
        return graph.replay

    def run(self) -> None:
        """Draw the codes of one row."""
        given = self._row_stream()
        for voxel in range(self.codes.shape[1]):
            found, known = self._read(given, voxel)
            chosen = choose_all(
                found.unflatten(0, (-1, self._ways)).movedim(1, 0),
                self.noise[:, voxel],
                self._choice,
            )
            codes = torch.where(self.drawn[voxel], chosen, self.codes[:, voxel])
            self.codes[:, voxel] = codes
            vector = self._weights.embedding[codes].unsqueeze(1)
            vector = vector.expand(-1, self._ways, -1).flatten(0, 1)
            self.embedded[:, voxel] = vector
            self._hold(known, vector)
            self.position += 1

    def _row_stream(self) -> list[Tensor]:
        """What joins the voxel stream, (item, voxel, 2·channels) per layer."""
        weights, given = self._weights, []
        radius = (self._windows.shape[3] - self.embedded.shape[1]) // 2
        slab = self.embedded
        for layer in range(len(weights.row)):
            windows = self._windows[layer]
            windows[:, :-1] = windows[:, 1:].clone()
            windows[:, -1, radius : radius + slab.shape[1]] = slab
            taps = windows.flatten(2).unfold(2, self._span, slab.shape[2])
            total = taps.movedim(2, 1).flatten(2) @ weights.row[layer]
            total = total + self.sums[layer, :, :, 0]
            linked = total @ weights.row_link[layer] + self.sums[layer, :, :, 1]
            given.append(linked + self.conditions[layer, :, :, 1])
            gated = gate((total + self.conditions[layer, :, :, 0]).movedim(2, 1))
            slab = gated.movedim(1, 2)
        return given

    def _read(self, given: list[Tensor], voxel: int) -> tuple[Tensor, list[Tensor]]:
        """Logits at one voxel, and what each attention is to hold besides the code."""
        weights, known = self._weights, []
        stream = self.embedded[:, voxel - 1] if voxel else torch.zeros_like(self.embedded[:, 0])
        skips = torch.zeros_like(stream)
        for layer in range(len(given)):
            self._voxels[layer, :, self._kernel - 1 + voxel] = stream
            window = self._voxels[layer, :, voxel : voxel + self._kernel].flatten(1)
            gated = gate(window @ weights.voxel[layer] + given[layer][:, voxel])
            out = gated @ weights.out[layer] + weights.out_bias[layer]
            residual, skip = out.chunk(2, dim=1)
            stream, skips = stream + residual, skips + skip
            number = self._follows[layer]
            if number >= 0:
                known.append(torch.cat([stream, self.context[:, voxel]], dim=1))
                stream = stream + self._attended(known[-1], number)
        hidden = functional.silu(functional.silu(skips) @ weights.head + weights.head_bias)
        return hidden @ weights.logits + weights.logits_bias, known

    def _attended(self, known: Tensor, number: int) -> Tensor:
        """What an attention finds among the null key and the positions before, (item, channels)."""
        weights = self._weights
        query = known @ weights.query[number] + weights.query_bias[number]
        rows = functional.scaled_dot_product_attention(
            query.unflatten(1, (self._heads, 1, -1)),
            self._keys[number],
            self._values[number],
            attn_mask=(self._places <= self.position).unsqueeze(0),
        )
        return rows.flatten(1) @ weights.attended[number]

    def _hold(self, known: list[Tensor], vector: Tensor) -> None:
        """Keep keys and values of the position, behind the null one."""
        weights = self._weights
        place = (self.position + 1).reshape(1)
        for number, stream in enumerate(known):
            held = torch.cat([stream, vector], dim=1) @ weights.held[number]
            pair = (held + weights.held_bias[number]).chunk(2, dim=1)
            for kept, row in zip((self._keys, self._values), pair, strict=True):
                kept[number].index_copy_(2, place, row.unflatten(1, (self._heads, 1, -1)))
