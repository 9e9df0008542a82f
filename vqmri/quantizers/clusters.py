"""Vectors drawn from tokens, the means of clusters, and which codes are dead."""

from typing import Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from vqmri.quantizers.distributed import Choose
from vqmri.quantizers.nearest import nearest

Initialisation = Literal["data", "kmeans"]
"""How the first training batch makes a codebook: of its tokens, or of the means of clusters."""

DEAD_BELOW = 0.1
"""A code is dead when its average use is below this share of the mean use of all codes."""

LLOYD_ITERATIONS = 10


def dead_codes(mean_count: Float[Tensor, " number"]) -> Bool[Tensor, " number"]:
    """Mask of the codes that are hardly used. Relative: 1,400 tokens over 2,048 codes are few."""
    return mean_count < DEAD_BELOW * mean_count.mean()


def totals(
    tokens: Float[Tensor, "tokens dim"], codes: Int[Tensor, " tokens"], number: int
) -> tuple[Int[Tensor, " number"], Float[Tensor, "number dim"]]:
    """How many tokens fell to each code, and their sum."""
    counts = torch.bincount(codes, minlength=number)
    sums = tokens.new_zeros(number, tokens.shape[1]).index_add_(0, codes, tokens)
    return counts, sums


def draw(tokens: Float[Tensor, "tokens dim"], number: int) -> Float[Tensor, "number dim"]:
    """Random tokens; none twice, unless there are fewer than `number`."""
    order = torch.randperm(tokens.shape[0], device=tokens.device)
    repeats = -(-number // tokens.shape[0])
    return tokens[order.repeat(repeats)[:number]]


def kmeans(tokens: Float[Tensor, "tokens dim"], number: int) -> Float[Tensor, "number dim"]:
    """Random tokens moved by Lloyd's iterations (Lloyd 1982), LLOYD_ITERATIONS of them.

    An empty cluster starts anew at a random token.
    """
    vectors = draw(tokens, number)
    for _ in range(LLOYD_ITERATIONS):
        counts, sums = totals(tokens, nearest(tokens, vectors), number)
        empty = counts == 0
        vectors = sums / counts.clamp(min=1).unsqueeze(1)
        if empty.any():
            vectors[empty] = draw(tokens, int(empty.sum()))
    return vectors


def quantiles(values: Float[Tensor, "values 1"], number: int) -> Float[Tensor, "number 1"]:
    """The values at the middles of `number` equal shares of the sorted values."""
    odd = 2 * torch.arange(number, device=values.device) + 1
    return values.sort(dim=0).values[odd * values.shape[0] // (2 * number)]


INITIALISATIONS: dict[Initialisation, Choose] = {"data": draw, "kmeans": kmeans}


def starting_rule(initialisation: Initialisation) -> Choose:
    """How a codebook's first vectors are taken from the tokens of the first training batch.

    Raises ValueError for an unknown name.
    """
    if initialisation not in INITIALISATIONS:
        allowed = ", ".join(INITIALISATIONS)
        raise ValueError(f"initialisation is {initialisation!r}; allowed: {allowed}")
    return INITIALISATIONS[initialisation]
