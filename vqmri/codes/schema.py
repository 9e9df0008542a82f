"""How codes are stored."""

import numpy as np

FORMAT_VERSION = 1


def code_dtype(num_embeddings: int) -> np.dtype[np.unsignedinteger]:
    """The narrowest unsigned type that holds `num_embeddings` itself.

    The codes are 0 … num_embeddings − 1, and num_embeddings is the fill value: a chunk that is
    missing reads as a code that does not exist, and not as code 0.
    """
    return np.min_scalar_type(num_embeddings)


def level_name(level: int) -> str:
    """Name of a level's array; level 0 is the finest."""
    return f"level_{level}"
