"""Normalised volumes at rest: one zarr v3 array, checksummed, and the table of what they are."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from jaxtyping import Float
from zarr.codecs import Crc32cCodec, ZstdCodec

from vqmri.errors import IntegrityError
from vqmri.outputs import Manifest
from vqmri.scans.volume import Record

STORE = "volumes.zarr"
ARRAY = "volumes"
FORMAT_VERSION = 1
VOLUMES_PER_SHARD = 8
_METADATA = (f"{STORE}/zarr.json", f"{STORE}/{ARRAY}/zarr.json")


def shard_range(shard: int, count: int) -> range:
    """Indices of the volumes in a shard of a store of `count` volumes."""
    return range(shard * VOLUMES_PER_SHARD, min((shard + 1) * VOLUMES_PER_SHARD, count))


class VolumeWriter:
    """Writes a store below `folder`; a shard has one writer at a time."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / STORE

    def create(self, count: int, channels: int, shape: Sequence[int]) -> None:
        """Make an empty store, or keep the one that a killed run left. The fill value is NaN."""
        group = zarr.open_group(self._path, mode="a", zarr_format=3)
        if ARRAY in group:
            return
        group.create_array(
            ARRAY,
            shape=(count, channels, *shape),
            chunks=(1, channels, *shape),
            shards=(VOLUMES_PER_SHARD, channels, *shape),
            dtype="float32",
            compressors=[ZstdCodec(level=3), Crc32cCodec()],
            fill_value=float("nan"),
            dimension_names=("volume", "channel", "x", "y", "z")[: 2 + len(shape)],
        )

    def write_shard(self, shard: int, volumes: Float[np.ndarray, "volume channel *space"]) -> None:
        """Write one whole shard at once; volumes that were refused are NaN."""
        array = _array(zarr.open_group(self._path, mode="r+"))
        indices = shard_range(shard, array.shape[0])
        array[indices.start : indices.stop] = volumes

    def finish(self, records: Sequence[Record], spacing: Sequence[float]) -> None:
        group = zarr.open_group(self._path, mode="r+")
        group.attrs.put(
            {
                "format_version": FORMAT_VERSION,
                "orientation": "RAS",
                "spacing": list(spacing),
                "records": [asdict(record) for record in records],
            }
        )


class VolumeStore:
    """Reads a published store and checks what it reads.

    records: the table, one row per volume
    spacing: mm per axis; shape: (channel, *space)
    """

    def __init__(self, folder: Path) -> None:
        """Open `folder`; IntegrityError when its metadata are not what was published."""
        Manifest.read(folder).check(folder, _METADATA)
        group = zarr.open_group(folder / STORE, mode="r")
        attributes: dict[str, Any] = dict(group.attrs)
        if attributes["format_version"] != FORMAT_VERSION:
            raise IntegrityError(
                f"{folder} has format version {attributes['format_version']}, this code reads "
                f"{FORMAT_VERSION}. Make it again."
            )
        self._folder = folder
        self._array = _array(group)
        self.records = [Record(**row) for row in attributes["records"]]
        self.spacing = tuple(float(s) for s in attributes["spacing"])
        self.shape: tuple[int, ...] = self._array.shape[1:]

    def of_split(self, split: str) -> list[Record]:
        return [record for record in self.records if record.split == split]

    def read(self, records: Sequence[Record]) -> Float[np.ndarray, "volume channel *space"]:
        """Volumes of some records. IntegrityError when one is damaged or absent."""
        return np.stack([self._read_one(record) for record in records])

    def _read_one(self, record: Record) -> np.ndarray:
        try:
            volume = np.asarray(self._array[record.index])
        except (ValueError, RuntimeError, OSError) as error:
            raise IntegrityError(
                f"{self._folder}: volume {record.index} ({record.source}) is damaged ({error}). "
                "Make the volumes again with `vqmri ingest`."
            ) from error
        if not np.isfinite(volume).all():
            raise IntegrityError(
                f"{self._folder}: volume {record.index} ({record.source}) is missing. "
                "Make the volumes again with `vqmri ingest`."
            )
        return volume


def _array(group: zarr.Group) -> zarr.Array[Any]:
    array = group[ARRAY]
    assert isinstance(array, zarr.Array)
    return array
