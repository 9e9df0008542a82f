"""Codes in a zarr v3 group: one array per level, in shards, every chunk with its checksum."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from jaxtyping import UInt
from zarr.codecs import Crc32cCodec, ZstdCodec

from vqmri.codes.schema import FORMAT_VERSION, code_dtype, level_name
from vqmri.errors import IntegrityError
from vqmri.outputs import Manifest

STORE = "codes.zarr"


class CodeWriter:
    """Writes a code store below `folder`; a shard has one writer at a time."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / STORE

    def create(
        self,
        count: int,
        grids: Sequence[Sequence[int]],
        num_embeddings: Sequence[int],
        items_per_shard: int,
    ) -> None:
        """Make an empty store, or keep the one that a killed run left."""
        group = zarr.open_group(self._path, mode="a", zarr_format=3)
        for level, (grid, number) in enumerate(zip(grids, num_embeddings, strict=True)):
            if level_name(level) in group:
                continue
            group.create_array(
                level_name(level),
                shape=(count, *grid),
                chunks=(1, *grid),
                shards=(items_per_shard, *grid),
                dtype=code_dtype(number),
                compressors=[ZstdCodec(level=3), Crc32cCodec()],
                fill_value=number,
                dimension_names=("volume", "x", "y", "z")[: 1 + len(grid)],
            )

    def write_shard(self, start: int, codes: Sequence[UInt[np.ndarray, "item ..."]]) -> None:
        """Write one whole shard of each level, finest first; `start` is its first item."""
        group = zarr.open_group(self._path, mode="r+")
        for level, block in enumerate(codes):
            _array(group, level)[start : start + len(block)] = block

    def finish(self, attributes: Mapping[str, Any]) -> None:
        """Add what the codes are: records of the volumes, downsampling, hash of the weights."""
        group = zarr.open_group(self._path, mode="r+")
        group.attrs.put({"format_version": FORMAT_VERSION, **attributes})


class CodeStore:
    """Reads a published code store and checks what it reads.

    attributes: `records` (rows of the volumes' table, in the order of the codes), `downsamplings`
        and the provenance
    grids, num_embeddings: of each level, finest first
    """

    def __init__(self, folder: Path) -> None:
        """Open `folder`; IntegrityError when its metadata are not what was published."""
        manifest = Manifest.read(folder)
        manifest.check(folder, [name for name in manifest.items if name.endswith("zarr.json")])
        self._folder = folder
        self._group = zarr.open_group(folder / STORE, mode="r")
        self.attributes: dict[str, Any] = dict(self._group.attrs)
        if self.attributes["format_version"] != FORMAT_VERSION:
            raise IntegrityError(
                f"{folder} has format version {self.attributes['format_version']}, this code "
                f"reads {FORMAT_VERSION}. Make it again with `vqmri encode`."
            )
        levels = len(self.attributes["downsamplings"])
        self._arrays = [_array(self._group, level) for level in range(levels)]
        self.grids = [tuple(array.shape[1:]) for array in self._arrays]
        self.num_embeddings = [int(array.fill_value) for array in self._arrays]
        self.count = int(self._arrays[0].shape[0])

    def read(self, indices: Sequence[int]) -> list[UInt[np.ndarray, "item ..."]]:
        """Codes of some items, finest level first. IntegrityError when one is damaged or absent."""
        return [self._read_level(level, indices) for level in range(len(self._arrays))]

    def _read_level(self, level: int, indices: Sequence[int]) -> np.ndarray:
        try:
            codes = np.stack([np.asarray(self._arrays[level][index]) for index in indices])
        except (ValueError, RuntimeError, OSError) as error:
            raise IntegrityError(self._message(level, indices, f"damaged ({error})")) from error
        if (codes >= self.num_embeddings[level]).any():
            raise IntegrityError(self._message(level, indices, "missing or out of range"))
        return codes

    def _message(self, level: int, indices: Sequence[int], fault: str) -> str:
        return (
            f"{self._folder}: {level_name(level)} has a chunk among items {list(indices)} that is "
            f"{fault}. Make the codes again with `vqmri encode`."
        )


def _array(group: zarr.Group, level: int) -> zarr.Array[Any]:
    array = group[level_name(level)]
    assert isinstance(array, zarr.Array)
    return array
