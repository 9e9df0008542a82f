"""Stored codes as models take them."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Num
from torch import Tensor


def code_tensors(
    maps: Sequence[Num[np.ndarray, "item ..."]], num_embeddings: Sequence[int]
) -> list[Tensor]:
    """Stored maps as models take them, (item, *grid): codes as int64, real gains as float32.

    num_embeddings: values of each map, 0 for real gains
    """
    return [
        torch.from_numpy(values.astype(np.int64 if number else np.float32))
        for values, number in zip(maps, num_embeddings, strict=True)
    ]
