"""Codes in a zarr v3 group: one array per map, in shards, every chunk with its checksum."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
import zarr
from jaxtyping import Num
from torch import Tensor
from zarr.codecs import Crc32cCodec, ZstdCodec

from vqmri.codes.schema import FORMAT_VERSION, CodeMap
from vqmri.errors import IntegrityError
from vqmri.outputs import Manifest
from vqmri.outputs.arrays import is_damage, open_array, open_group
from vqmri.outputs.publish import sync
from vqmri.outputs.reading import understood

STORE = "codes.zarr"


class CodeWriter:
    """Writes a code store below `folder`; a shard has one writer at a time."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / STORE

    def create(self, count: int, maps: Sequence[CodeMap], items_per_shard: int) -> None:
        """Make an empty store of `count` items, or keep the one that a killed run left.

        items_per_shard: items that are written together, in one file per map
        Raises IntegrityError when a power cut left that one damaged.
        """
        with understood(self._path, "Remove it with `vqmri clean`, and start again."):
            group = zarr.open_group(self._path, mode="a", zarr_format=3)
            for code_map in maps:
                if code_map.name in group:
                    continue
                group.create_array(
                    code_map.name,
                    shape=(count, *code_map.grid),
                    chunks=(code_map.chunk_items(items_per_shard), *code_map.grid),
                    shards=(items_per_shard, *code_map.grid),
                    dtype=code_map.dtype,
                    compressors=[ZstdCodec(level=3), Crc32cCodec()],
                    fill_value=code_map.num_embeddings or float("nan"),
                    dimension_names=("volume", "x", "y", "z")[: 1 + len(code_map.grid)],
                )
            group.attrs.put({"maps": [asdict(code_map) for code_map in maps]})
        sync(self._path, self._path.parent)

    def write_shard(self, start: int, codes: Sequence[Num[np.ndarray, "item ..."]]) -> None:
        """Write one whole shard of each map, finest first; `start` is its first item.

        It is on the disk afterwards, so that the caller may say that it is done.
        """
        group = zarr.open_group(self._path, mode="r+")
        for code_map, block in zip(_maps(group), codes, strict=True):
            array = zarr.open_array(self._path, path=code_map.name, mode="r+")
            array[start : start + len(block)] = block.astype(code_map.dtype)
            assert array.shards is not None
            shard = self._path / code_map.name / "c" / str(start // array.shards[0])
            sync(shard, self._path.parent)

    def finish(self, attributes: Mapping[str, Any]) -> None:
        """Add what the codes are: records of the volumes, downsampling, hash of the weights."""
        group = zarr.open_group(self._path, mode="r+")
        group.attrs.update({"format_version": FORMAT_VERSION, **attributes})


class CodeStore:
    """Reads a published code store and checks what it reads.

    attributes: `records` (rows of the volumes' table, in the order of the codes), `downsamplings`
        and the provenance
    maps: what the arrays are, finest first; grids, num_embeddings: of each
    """

    def __init__(self, folder: Path) -> None:
        """Open `folder`; IntegrityError when its metadata are not what was published.

        Also when they were published, but are none that a CodeWriter writes.
        """
        manifest = Manifest.read(folder)
        manifest.check(folder, [name for name in manifest.items if name.endswith("zarr.json")])
        self._folder = folder
        with understood(folder, "Make it again with `vqmri encode`."):
            self._open(folder / STORE)

    def _open(self, path: Path) -> None:
        group = open_group(path)
        self.attributes: dict[str, Any] = dict(group.attrs)
        if self.attributes["format_version"] != FORMAT_VERSION:
            raise IntegrityError(
                f"{path} has format version {self.attributes['format_version']}, this code "
                f"reads {FORMAT_VERSION}. Make it again with `vqmri encode`."
            )
        self.maps = _maps(group)
        self._arrays = [open_array(group, m.name, m.dtype) for m in self.maps]
        self.grids = [code_map.grid for code_map in self.maps]
        self.num_embeddings = [code_map.num_embeddings for code_map in self.maps]
        self.count = int(self._arrays[0].shape[0])
        for code_map, array in zip(self.maps, self._arrays, strict=True):
            if array.shape != (self.count, *code_map.grid):
                raise ValueError(f"{code_map.name} has shape {array.shape}, not {code_map.grid}")

    def read(self, indices: Sequence[int]) -> list[Num[np.ndarray, "item ..."]]:
        """Values of some items, finest map first; `indices` count from 0.

        Raises IntegrityError when a value is damaged or absent, OSError when the machine cannot
        read.
        """
        return [
            self._read_map(code_map, array, indices)
            for code_map, array in zip(self.maps, self._arrays, strict=True)
        ]

    def _read_map(
        self, code_map: CodeMap, array: zarr.Array[Any], indices: Sequence[int]
    ) -> np.ndarray:
        blocks = []
        for start, stop in _runs(indices):
            try:
                block = np.asarray(array[start:stop])
            except (ValueError, RuntimeError, OSError) as error:
                if not is_damage(error):
                    raise
                raise self._fault(code_map, start, stop, f"damaged ({error})") from error
            if not code_map.is_valid(block):
                raise self._fault(code_map, start, stop, "missing or out of range")
            blocks.append(block)
        return np.concatenate(blocks)

    def _fault(self, code_map: CodeMap, start: int, stop: int, fault: str) -> IntegrityError:
        return IntegrityError(
            f"{self._folder}: {code_map.name} has a chunk among items {start} to {stop - 1} that "
            f"is {fault}. Make the codes again with `vqmri encode`."
        )


def _runs(indices: Sequence[int]) -> list[tuple[int, int]]:
    """The indices as half-open ranges, in their order: neighbours are read at once."""
    runs: list[tuple[int, int]] = []
    for index in indices:
        if runs and runs[-1][1] == index:
            runs[-1] = (runs[-1][0], index + 1)
        else:
            runs.append((index, index + 1))
    return runs


def _maps(group: zarr.Group) -> list[CodeMap]:
    found: Any = group.attrs["maps"]
    return [CodeMap(m["name"], tuple(m["grid"]), m["num_embeddings"]) for m in found]


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
