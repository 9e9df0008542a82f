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
    """Written over again and again; a row of a window is what one product takes in."""

    rows: Array  # (layer, kernel, item, voxel + 2·radius, channels): the last rows, newest last
    row_windows: Array  # (item, voxel, kernel·(2·radius + 1)·channels)
    row_sums: Array  # (item, voxel, 2·channels)
    row_links: Array  # (item, voxel, 2·channels)
    given: Array  # (layer, voxel, item, 2·channels): what joins the voxel stream of this row
    voxels: Array  # (layer, kernel − 1 + voxel, item, channels): the voxel stream of this row
    windows: Array  # (item, kernel·channels)
    sums: Array  # (item, 2·channels)
    gated: Array  # (item, channels)
    stream: Array  # (item, channels)
    skips: Array  # (item, channels)
    known: Array  # (attention, item, 3·channels): stream, context and embedded code
    asking: Array  # (item, 2·channels): stream and context
    query: Array  # (item, channels)
    attention: Array  # (position + 1,)
    logits: Array  # (item, num_embeddings)
    scores: Array  # (num_embeddings,)


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
    samples: Any,
) -> None:
    """Draw the codes of one plane of the samples in [samples[0], samples[1]), in place.

    A sample is one item, or two for guidance: with the covariates and then without.

    weights: `RowWeights` of arrays
    context: (item or 1, row, voxel, channels)
    noise: (sample, row, voxel, num_embeddings), standard exponential
    choice: `Choice.plain`
    codes: (sample, row, voxel); the `given` first positions of the whole grid are kept
    embedded: (item, row, voxel, channels), of the codes; written
    logits: (sample, way, row, voxel, num_embeddings) to be written, or empty
    first: number of the plane's first position in the grid
    """
    count, num_rows, length = codes.shape
    ways = embedded.shape[0] // count
    start, stop = samples
    scratch = _scratch(weights, (stop - start) * ways, length, memory.keys)
    for row in range(num_rows):
        _enter_row(weights, terms, embedded, scratch, start * ways, row)
        for voxel in range(length):
            position = first + row * length + voxel
            _read(weights, memory, scratch, context, start * ways, row, voxel, position)
            if position >= given or logits.size:
                _logits(weights, scratch)
            for sample in range(start, stop):
                mine = scratch.logits[(sample - start) * ways : (sample - start + 1) * ways]
                if logits.size:
                    logits[sample, :, row, voxel] = mine
                if position >= given:
                    codes[sample, row, voxel] = choose(
                        mine, noise[sample, row, voxel], choice, scratch.scores
                    )
                vector = weights.embedding[codes[sample, row, voxel]]
                for item in range(sample * ways, (sample + 1) * ways):
                    copy(embedded[item, row, voxel], vector)
            _accept(weights, memory, scratch, embedded, start * ways, row, voxel, position)


@compiled()
def _scratch(weights: Any, items: int, length: int, keys: Any) -> Any:
    dtype = weights.row.dtype
    layers, window, double = weights.row.shape
    channels, codes = double // 2, weights.logits_bias.size
    kernel = weights.voxel.shape[1] // channels
    around = window // (kernel * channels) - 1
    return Scratch(
        rows=np.zeros((layers, kernel, items, length + around, channels), dtype),
        row_windows=np.zeros((items, length, window), dtype),
        row_sums=np.zeros((items, length, double), dtype),
        row_links=np.zeros((items, length, double), dtype),
        given=np.zeros((layers, length, items, double), dtype),
        voxels=np.zeros((layers, kernel - 1 + length, items, channels), dtype),
        windows=np.zeros((items, kernel * channels), dtype),
        sums=np.zeros((items, double), dtype),
        gated=np.zeros((items, channels), dtype),
        stream=np.zeros((items, channels), dtype),
        skips=np.zeros((items, channels), dtype),
        known=np.zeros((keys.shape[1], items, 3 * channels), dtype),
        asking=np.zeros((items, double), dtype),
        query=np.zeros((items, channels), dtype),
        attention=np.zeros(keys.shape[4], dtype),
        logits=np.zeros((items, codes), dtype),
        scores=np.zeros(codes, dtype),
    )


@compiled()
def _enter_row(weights: Any, terms: Any, embedded: Any, scratch: Any, first: int, row: int) -> None:
    """The row stream of this row in all layers, and what it adds to the voxel stream.

    first: number of the first item
    """
    layers, _, items, width, _ = scratch.rows.shape
    length = embedded.shape[2]
    radius = (width - length) // 2
    sums, links = scratch.row_sums, scratch.row_links
    if row > 0:
        for item in range(items):
            for voxel in range(length):
                before = embedded[first + item, row - 1, voxel]
                copy(scratch.rows[0, -1, item, radius + voxel], before)
    for layer in range(layers):
        _gather(scratch.row_windows, scratch.rows[layer])
        windows = scratch.row_windows.reshape(items * length, -1)
        multiply(sums.reshape(items * length, -1), windows, weights.row[layer])
        for item in range(items):
            for voxel in range(length):
                add(sums[item, voxel], terms.sums[layer, first + item, row, voxel, 0])
        flat = sums.reshape(items * length, -1)
        multiply(links.reshape(items * length, -1), flat, weights.row_link[layer])
        for item in range(items):
            same = (first + item) % terms.conditions.shape[1]
            for voxel in range(length):
                given = scratch.given[layer, voxel, item]
                copy(given, links[item, voxel])
                add(given, terms.sums[layer, first + item, row, voxel, 1])
                add(given, terms.conditions[layer, same, row, voxel, 1])
                if layer + 1 < layers:
                    add(sums[item, voxel], terms.conditions[layer, same, row, voxel, 0])
                    out = scratch.rows[layer + 1, -1, item, radius + voxel]
                    gates(out, sums[item, voxel])


@compiled()
def _gather(windows: Any, rows: Any) -> None:
    """Windows of one layer's rows; then the rows move up, and the newest is free."""
    items, length, _ = windows.shape
    kernel, _, width, channels = rows.shape
    span = (width - length + 1) * channels
    for back in range(kernel):
        for item in range(items):
            line = rows[back, item].reshape(width * channels)
            for voxel in range(length):
                window = windows[item, voxel]
                for c in range(span):
                    window[back * span + c] = line[voxel * channels + c]
    for back in range(kernel - 1):
        copy(rows[back].reshape(-1), rows[back + 1].reshape(-1))


@compiled()
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
    copy(stream.reshape(-1), scratch.voxels[0, kernel - 1 + voxel].reshape(-1))
    skips[:] = 0
    for layer in range(layers):
        voxels = scratch.voxels[layer]
        copy(voxels[kernel - 1 + voxel].reshape(-1), stream.reshape(-1))
        for item in range(items):
            for back in range(kernel):
                window = scratch.windows[item, back * channels : (back + 1) * channels]
                copy(window, voxels[voxel + back, item])
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


@compiled()
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
            attention[:] = 0
            add_product(attention, query[item, head * part : (head + 1) * part], keys[head])
            softmax(attention)
            for c in range(part):
                value = values[head, c]
                total = attention[0] * 0
                for p in range(attention.size):
                    total += attention[p] * value[p]
                gathered[item, head * part + c] = total
        add_product(scratch.stream[item], gathered[item], weights.attended[number])


@compiled()
def _logits(weights: Any, scratch: Any) -> None:
    """The head: from the read-out to the logits."""
    hidden = scratch.sums
    silu(scratch.skips.reshape(-1))
    multiply(hidden, scratch.skips, weights.head)
    for item in range(hidden.shape[0]):
        add(hidden[item], weights.head_bias)
        silu(hidden[item])
    multiply(scratch.logits, hidden, weights.logits)
    for item in range(hidden.shape[0]):
        add(scratch.logits[item], weights.logits_bias)


@compiled()
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


@compiled()
def _hold(memory: Any, vector: Any, position: int) -> None:
    """Keep a key or a value behind the null one, (head, part, position + 1)."""
    heads, part, _ = memory.shape
    for head in range(heads):
        for c in range(part):
            memory[head, c, position + 1] = vector[head * part + c]
