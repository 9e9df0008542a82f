"""Stored codes as models take them."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Num
from torch import Tensor


def code_tensors(
    maps: Sequence[Num[np.ndarray, "item ..."]], num_embeddings: Sequence[int]
) -> list[Tensor]:
    """Stored maps as models take them: codes as int64, unquantised gains as float32."""
    return [
        torch.from_numpy(values.astype(np.int64 if number else np.float32))
        for values, number in zip(maps, num_embeddings, strict=True)
    ]
