"""Arrays of published outputs, opened without trust in what their metadata say, and as bytes."""

import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import zarr

MOST_VALUES = 2**30
"""Values of one item, or of one chunk: a volume of 1024 voxels along each axis."""

_MOST_CHUNKS = 2**22  # of a shard, whose index is read as a whole


def open_group(path: Path) -> zarr.Group:
    """Read a group, of zarr version 3 only: version 2 knows a codec that unpickles.

    Raises ValueError, TypeError or LookupError for what is none.
    """
    return zarr.open_group(path, mode="r", zarr_format=3)


def open_array(group: zarr.Group, name: str, dtype: np.dtype[Any]) -> zarr.Array[Any]:
    """An array of this type below `group`. Nothing of its size has been allocated.

    Raises ValueError, TypeError or LookupError for one of another type, for one that would not fit
    into memory, and for a name that leads out of the group.
    """
    array = group[name]
    if not isinstance(array, zarr.Array):
        raise TypeError(f"{name} is no array")
    if array.dtype != dtype:
        raise TypeError(f"{name} holds {array.dtype}, expected {dtype}")
    item, chunk = math.prod(array.shape[1:]), math.prod(array.chunks)
    chunks = math.prod(array.shards or array.chunks) // max(chunk, 1)
    if not 0 < item <= MOST_VALUES or not 0 < chunk <= MOST_VALUES or chunks > _MOST_CHUNKS:
        raise ValueError(f"{name} has shape {array.shape} in chunks {array.chunks}")
    return array


def is_damage(error: Exception) -> bool:
    """Whether a fault in reading lies in the bytes; else the file server may be away.

    What zarr and its codecs raise over damaged bytes is no number of the operating system's.
    """
    return not isinstance(error, OSError) or error.errno is None


def npy(array: np.ndarray) -> bytes:
    """What a file of the array holds, for `replace_file`."""
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


def npz(arrays: Mapping[str, Any]) -> bytes:
    """The same of several arrays, by their names."""
    file = io.BytesIO()
    np.savez(file, **arrays)
    return file.getvalue()


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """What `npz` made."""
    with np.load(path) as arrays:
        return dict(arrays)
