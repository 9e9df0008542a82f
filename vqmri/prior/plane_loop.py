"""The rows and voxels of one plane, compiled: all that cannot be done for many positions at once.

Each item of the batch goes through it by itself, so its codes do not depend on its neighbours, and
items may be spread over threads.
"""

from typing import Any, NamedTuple

import numpy as np

from vqmri.prior.arithmetic import (
    add,
    add_product,
    compiled,
    copy,
    gates,
    multiply,
    silu,
    softmax,
)
from vqmri.prior.choice import choose

Array = np.ndarray
"""Of one precision throughout, and contiguous."""


class Terms(NamedTuple):
    """What a plane's rows and voxels are given, (layer, item, row, voxel, 2, 2·channels).

    The first of the two joins the row stream, the second the voxel stream.
    """

    sums: Array  # before the gate; what joins a row goes on to its voxels
    conditions: Array  # in the gate alone; the item axis may be 1, for all items


class Memory(NamedTuple):
    """What attention keeps of all positions so far: (item, attention, head, part, position + 1).

    The null key and value of zeros stand first.
    """

    keys: Array
    values: Array


class Scratch(NamedTuple):
    """Written over again and again, but for the rows, which must be zero when a plane begins.

    A row of a window is what one product takes in; `line` is a whole row of codes and its padding,
    (voxel + 2·radius)·channels.
    """

    rows: Any  # (layer, kernel, item, line): the last rows, newest last
    row_windows: Any  # (item·voxel, kernel·(2·radius + 1)·channels)
    row_sums: Any  # (item·voxel, 2·channels)
    row_links: Any  # (item·voxel, 2·channels)
    given: Any  # (layer, voxel, item, 2·channels): what joins the voxel stream of this row
    voxels: Any  # (layer, kernel − 1 + voxel, item, channels): the voxel stream of this row
    windows: Any  # (item, kernel·channels)
    sums: Any  # (item, 2·channels)
    gated: Any  # (item, channels)
    stream: Any  # (item, channels)
    skips: Any  # (item, channels)
    known: Any  # (attention, item, 3·channels): stream, context and embedded code
    asking: Any  # (item, 2·channels): stream and context
    query: Any  # (item, channels)
    attention: Any  # (position + 1,)
    logits: Any  # (item, num_embeddings)
    scores: Any  # (num_embeddings,)


def scratch(weights: Any, items: int, length: int, positions: int) -> Scratch:
    """Zeros, for rows of `length` voxels of a grid of `positions`."""
    layers, window, double = weights.row.shape
    channels, codes = double // 2, len(weights.logits_bias)
    kernel = weights.voxel.shape[1] // channels
    line = (length - 1) * channels + window // kernel

    def zeros(*shape: int) -> np.ndarray:
        return np.zeros(shape, weights.row.dtype)

    return Scratch(
        rows=zeros(layers, kernel, items, line),
        row_windows=zeros(items * length, window),
        row_sums=zeros(items * length, double),
        row_links=zeros(items * length, double),
        given=zeros(layers, length, items, double),
        voxels=zeros(layers, kernel - 1 + length, items, channels),
        windows=zeros(items, kernel * channels),
        sums=zeros(items, double),
        gated=zeros(items, channels),
        stream=zeros(items, channels),
        skips=zeros(items, channels),
        known=zeros(len(weights.query), items, 3 * channels),
        asking=zeros(items, double),
        query=zeros(items, channels),
        attention=zeros(positions + 1),
        logits=zeros(items, codes),
        scores=zeros(codes),
    )


@compiled()
def draw_plane(
    weights: Any,
    terms: Any,
    memory: Any,
    context: Any,
    noise: Any,
    choice: Any,
    codes: Any,
    embedded: Any,
    logits: Any,
    first: int,
    given: int,
    start: int,
    scratch: Any,
) -> None:
    """Draw the codes of one plane of the samples from `start` on that `scratch` has room for.

    A sample is one item, or two for guidance: with the covariates and then without.

    weights: `RowWeights` of arrays
    context: (item or 1, row, voxel, channels)
    noise: (sample, row, voxel, num_embeddings), standard exponential
    choice: `Choice.plain`
    codes: (sample, row, voxel); the `given` first positions of the whole grid are kept
    embedded: (item, row, voxel, channels), of the codes; written
    logits: (item, row, voxel, num_embeddings) to be written, or empty
    first: number of the plane's first position in the grid
    """
    count, num_rows, length = codes.shape
    ways = embedded.shape[0] // count
    items = scratch.logits.shape[0]
    for row in range(num_rows):
        _enter_row(weights, terms, embedded, scratch, start * ways, row)
        for voxel in range(length):
            position = first + row * length + voxel
            _read(weights, memory, scratch, context, start * ways, row, voxel, position)
            if position >= given or logits.size:
                _logits(weights, scratch)
            if logits.size:
                for item in range(items):
                    copy(logits[start * ways + item, row, voxel], scratch.logits[item])
            for sample in range(start, start + items // ways):
                if position >= given:
                    mine = scratch.logits[(sample - start) * ways : (sample - start + 1) * ways]
                    codes[sample, row, voxel] = choose(
                        mine, noise[sample, row, voxel], choice, scratch.scores
                    )
                vector = weights.embedding[codes[sample, row, voxel]]
                for item in range(sample * ways, (sample + 1) * ways):
                    copy(embedded[item, row, voxel], vector)
            _accept(weights, memory, scratch, embedded, start * ways, row, voxel, position)


@compiled(inner=True)
def _enter_row(weights: Any, terms: Any, embedded: Any, scratch: Any, first: int, row: int) -> None:
    """The row stream of this row in all layers, and what it adds to the voxel stream.

    first: number of the first item
    """
    layers, kernel, items, line = scratch.rows.shape
    length, channels = embedded.shape[2:4]
    margin = (line - length * channels) // 2
    sums, links = scratch.row_sums, scratch.row_links
    if row > 0:
        for item in range(items):
            for voxel in range(length):
                newest = scratch.rows[0, kernel - 1, item, margin + voxel * channels :]
                for c in range(channels):
                    newest[c] = embedded[first + item, row - 1, voxel, c]
    for layer in range(layers):
        _gather(scratch.row_windows, scratch.rows[layer], channels)
        multiply(sums, scratch.row_windows, weights.row[layer])
        for item in range(items):
            for voxel in range(length):
                add(sums[item * length + voxel], terms.sums[layer, first + item, row, voxel, 0])
        multiply(links, sums, weights.row_link[layer])
        for item in range(items):
            same = (first + item) % terms.conditions.shape[1]
            for voxel in range(length):
                given = scratch.given[layer, voxel, item]
                copy(given, links[item * length + voxel])
                add(given, terms.sums[layer, first + item, row, voxel, 1])
                add(given, terms.conditions[layer, same, row, voxel, 1])
                if layer + 1 < layers:
                    total = sums[item * length + voxel]
                    add(total, terms.conditions[layer, same, row, voxel, 0])
                    place = margin + voxel * channels
                    newest = scratch.rows[layer + 1, kernel - 1, item]
                    gates(newest[place : place + channels], total)


@compiled(inner=True)
def _gather(windows: Any, rows: Any, channels: int) -> None:
    """Windows of one layer's rows; then the rows move up, and the newest is free."""
    kernel, items, _ = rows.shape
    length, span = windows.shape[0] // items, windows.shape[1] // kernel
    for back in range(kernel):
        for item in range(items):
            line = rows[back, item]
            for voxel in range(length):
                window = windows[item * length + voxel]
                for c in range(span):
                    window[back * span + c] = line[voxel * channels + c]
            if back:
                copy(rows[back - 1, item], line)


@compiled(inner=True)
def _read(
    weights: Any,
    memory: Any,
    scratch: Any,
    context: Any,
    first: int,
    row: int,
    voxel: int,
    position: int,
) -> None:
    """The voxel stream at one position in all layers; `skips` is what it tells the head."""
    layers, _, items, channels = scratch.voxels.shape
    kernel = weights.voxel.shape[1] // channels
    stream, skips, sums, gated = scratch.stream, scratch.skips, scratch.sums, scratch.gated
    for item in range(items):
        for c in range(channels):
            stream[item, c] = scratch.voxels[0, kernel - 1 + voxel, item, c]
            skips[item, c] = 0
    for layer in range(layers):
        voxels = scratch.voxels[layer]
        for item in range(items):
            copy(voxels[kernel - 1 + voxel, item], stream[item])
            for back in range(kernel):
                for c in range(channels):
                    scratch.windows[item, back * channels + c] = voxels[voxel + back, item, c]
        multiply(sums, scratch.windows, weights.voxel[layer])
        for item in range(items):
            add(sums[item], scratch.given[layer, voxel, item])
            gates(gated[item], sums[item])
        multiply(sums, gated, weights.out[layer])
        for item in range(items):
            for c in range(channels):
                stream[item, c] += sums[item, c] + weights.out_bias[layer, c]
                skips[item, c] += sums[item, channels + c] + weights.out_bias[layer, channels + c]
        number = weights.attention[layer]
        if number >= 0:
            for item in range(items):
                here = context[(first + item) % context.shape[0], row, voxel]
                copy(scratch.asking[item, :channels], stream[item])
                copy(scratch.asking[item, channels:], here)
                copy(scratch.known[number, item, : 2 * channels], scratch.asking[item])
            _attend(weights, memory, scratch, first, number, position)


@compiled(inner=True)
def _attend(
    weights: Any, memory: Any, scratch: Any, first: int, number: int, position: int
) -> None:
    """Add to the stream what one attention finds among the null key and the positions before."""
    items, channels = scratch.query.shape
    heads, part = memory.keys.shape[2:4]
    attention, query, gathered = scratch.attention[: position + 1], scratch.query, scratch.gated
    scale = query.dtype.type(1 / np.sqrt(part))
    multiply(query, scratch.asking, weights.query[number])
    for item in range(items):
        keys, values = memory.keys[first + item, number], memory.values[first + item, number]
        for c in range(channels):
            query[item, c] = (query[item, c] + weights.query_bias[number, c]) * scale
        for head in range(heads):
            for p in range(attention.size):
                attention[p] = 0
            add_product(attention, query[item, head * part : (head + 1) * part], keys[head])
            softmax(attention)
            for c in range(part):
                value = values[head, c]
                total = attention[0] * 0
                for p in range(attention.size):
                    total += attention[p] * value[p]
                gathered[item, head * part + c] = total
        add_product(scratch.stream[item], gathered[item], weights.attended[number])


@compiled(inner=True)
def _logits(weights: Any, scratch: Any) -> None:
    """The head: from the read-out to the logits."""
    hidden = scratch.sums
    for item in range(hidden.shape[0]):
        silu(scratch.skips[item])
    multiply(hidden, scratch.skips, weights.head)
    for item in range(hidden.shape[0]):
        add(hidden[item], weights.head_bias)
        silu(hidden[item])
    multiply(scratch.logits, hidden, weights.logits)
    for item in range(hidden.shape[0]):
        add(scratch.logits[item], weights.logits_bias)


@compiled(inner=True)
def _accept(
    weights: Any,
    memory: Any,
    scratch: Any,
    embedded: Any,
    first: int,
    row: int,
    voxel: int,
    position: int,
) -> None:
    """Let the voxel stream and the attentions hold the position's code."""
    _, behind, items, channels = scratch.voxels.shape
    after = weights.voxel.shape[1] // channels + voxel
    if after < behind:
        for item in range(items):
            copy(scratch.voxels[0, after, item], embedded[first + item, row, voxel])
    if position + 1 < memory.keys.shape[4]:
        for number in range(memory.keys.shape[1]):
            for item in range(items):
                copy(
                    scratch.known[number, item, 2 * channels :], embedded[first + item, row, voxel]
                )
            multiply(scratch.sums, scratch.known[number], weights.held[number])
            for item in range(items):
                add(scratch.sums[item], weights.held_bias[number])
                _hold(memory.keys[first + item, number], scratch.sums[item, :channels], position)
                _hold(memory.values[first + item, number], scratch.sums[item, channels:], position)


@compiled(inner=True)
def _hold(memory: Any, vector: Any, position: int) -> None:
    """Keep a key or a value behind the null one, (head, part, position + 1)."""
    heads, part, _ = memory.shape
    for head in range(heads):
        for c in range(part):
            memory[head, c, position + 1] = vector[head * part + c]
