"""What several processes agree on. With one process, every function here does nothing."""

from collections.abc import Callable

import torch
import torch.distributed as dist
from jaxtyping import Float
from torch import Tensor

Choose = Callable[[Tensor, int], Tensor]
"""Takes tokens (tokens, dim) and a number; gives so many vectors (number, dim)."""


def is_distributed() -> bool:
    """Whether this process is one of several ranks."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def sum_over_ranks(value: Tensor) -> Tensor:
    """The sum of all ranks' values, written over `value`."""
    if is_distributed():
        dist.all_reduce(value)
    return value


def gather_tokens(tokens: Float[Tensor, "tokens dim"]) -> Float[Tensor, "all_tokens dim"]:
    """The tokens of all ranks in the order of the ranks, each of which may hold another number."""
    if not is_distributed():
        return tokens
    own = torch.tensor([tokens.shape[0]], device=tokens.device)
    sizes = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(sizes, own)
    # all_gather takes equal shapes only
    padded = tokens.new_zeros(int(max(sizes)), tokens.shape[1])
    padded[: tokens.shape[0]] = tokens
    parts = [torch.empty_like(padded) for _ in sizes]
    dist.all_gather(parts, padded)
    return torch.cat([part[: int(size)] for part, size in zip(parts, sizes, strict=True)])


def chosen_by_rank_0(
    choose: Choose, tokens: Float[Tensor, "tokens dim"], number: int
) -> Float[Tensor, "number dim"]:
    """`choose` of all ranks' tokens, made by rank 0 with its random generator and given to all."""
    gathered = gather_tokens(tokens)
    if not is_distributed():
        return choose(gathered, number)
    if dist.get_rank() == 0:
        chosen = choose(gathered, number).contiguous()
    else:
        chosen = tokens.new_empty(number, tokens.shape[1])
    dist.broadcast(chosen, src=0)
    return chosen
