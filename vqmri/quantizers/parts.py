"""A batch that comes in parts, and codebooks that move once for it."""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class MovedByData(nn.Module, ABC):
    """A module whose buffers follow what falls to its codes."""

    _kept: list[tuple[Tensor, ...]] | None = None

    @abstractmethod
    def follow(self, *fallen: Tensor) -> None:
        """Take one step with these tensors, whose first axis runs over the tokens."""

    def update(self, *fallen: Tensor) -> None:
        """Take one step with these tensors; within `one_update` it is taken at its end."""
        if self._kept is None:
            self.follow(*fallen)
        else:
            self._kept.append(fallen)


@contextmanager
def one_update(model: nn.Module) -> Iterator[None]:
    """What a batch in several parts does to the codebooks in here, it does as if it were whole.

    All parts are quantized with the same vectors, whose averages and counts move once, at the end.
    What is chosen from data before codes are, is chosen from the first part: all vectors in the
    very first step, and later those that the codebook loss restarts. After an error nothing moves,
    nor is any other process waited for.
    """
    moved = [module for module in model.modules() if isinstance(module, MovedByData)]
    for module in moved:
        module._kept = []
    try:
        yield
        kept = [module._kept or [] for module in moved]
    finally:
        for module in moved:
            module._kept = None
    for module, parts in zip(moved, kept, strict=True):
        if parts:
            module.follow(*(torch.cat(tensors) for tensors in zip(*parts, strict=True)))
