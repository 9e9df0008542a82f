"""Normalised volumes at rest: one zarr v3 array, checksummed, and the table of what they are."""

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from jaxtyping import Float
from zarr.codecs import BloscCodec, Crc32cCodec

from vqmri.errors import IntegrityError
from vqmri.outputs import Manifest
from vqmri.outputs.arrays import is_damage, open_array, open_group
from vqmri.outputs.publish import sync
from vqmri.outputs.reading import understood
from vqmri.scans.volume import Channel, Record

STORE = "volumes.zarr"
ARRAY = "volumes"
FORMAT_VERSION = 3
_METADATA = (f"{STORE}/zarr.json", f"{STORE}/{ARRAY}/zarr.json")
_AXES = {2: ("row", "column"), 3: ("x", "y", "z")}
_CHUNK_VALUES = 2**18  # of pictures; one chunk is read and checked as a whole
_MOST_PICTURES = 256
_SHARD_VALUES = 2**23  # of volumes: 32 MiB before compression
_CACHE_BYTES = 2**30


def volumes_per_chunk(shape: Sequence[int]) -> int:
    """Volumes of `shape` (channel, *space) in one chunk: 1 in 3D, up to 256 small pictures."""
    if len(shape) > 3:
        return 1
    fit = max(_CHUNK_VALUES // int(np.prod(shape)), 1)
    return min(2 ** (fit.bit_length() - 1), _MOST_PICTURES)


def volumes_per_shard(shape: Sequence[int]) -> int:
    """Volumes of `shape` (channel, *space) in one shard: 8 in 3D, 4096 images of MNIST.

    A brain at 1 mm is a shard by itself, so that few of them still are work for several processes.
    """
    if len(shape) > 3:
        return min(max(_SHARD_VALUES // int(np.prod(shape)), 1), 8)
    return 16 * volumes_per_chunk(shape)


def shard_range(shard: int, count: int, size: int) -> range:
    """Indices of the volumes in a shard of a store of `count` volumes, `size` to a shard."""
    return range(shard * size, min((shard + 1) * size, count))


class VolumeWriter:
    """Writes a store below `folder`; a shard has one writer at a time."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / STORE

    def create(self, count: int, channels: int, shape: Sequence[int]) -> None:
        """Make an empty store, or keep the one that a killed run left. The fill value is NaN.

        Raises IntegrityError when a power cut left that one damaged.
        """
        with understood(self._path, "Remove it with `vqmri clean`, and start again."):
            group = zarr.open_group(self._path, mode="a", zarr_format=3)
            volume = (channels, *shape)
            if ARRAY not in group:
                group.create_array(
                    ARRAY,
                    shape=(count, *volume),
                    chunks=(volumes_per_chunk(volume), *volume),
                    shards=(volumes_per_shard(volume), *volume),
                    dtype="float32",
                    compressors=[BloscCodec(cname="lz4", shuffle="shuffle"), Crc32cCodec()],
                    fill_value=float("nan"),
                    dimension_names=("volume", "channel", *_AXES[len(shape)]),
                )
        sync(self._path, self._path.parent)

    def write_shard(self, shard: int, volumes: Float[np.ndarray, "volume channel *space"]) -> None:
        """Write one whole shard at once; volumes that were refused are NaN.

        It is on the disk afterwards, so that the caller may say that it is done.
        """
        array = zarr.open_array(self._path, path=ARRAY, mode="r+")
        indices = shard_range(shard, array.shape[0], volumes_per_shard(array.shape[1:]))
        array[indices.start : indices.stop] = volumes
        sync(self._path / ARRAY / "c" / str(shard), self._path.parent)

    def finish(
        self, records: Sequence[Record], spacing: Sequence[float], channels: Sequence[Channel]
    ) -> None:
        """Add what the volumes are. spacing: mm per axis, () for pictures."""
        attributes: dict[str, Any] = {
            "format_version": FORMAT_VERSION,
            "orientation": "RAS" if spacing else None,
            "spacing": list(spacing),
            "channels": [
                {"name": channel.name, "label_values": list(channel.label_values)}
                for channel in channels
            ],
            "records": [vars(record) for record in records],
        }
        with zarr.config.set({"json_indent": None}):  # of 70,000 records: 2 s less, half the size
            zarr.open_group(self._path, mode="r+").attrs.put(attributes)


class VolumeStore:
    """Reads a published store and checks what it reads.

    records: the table, one row per volume
    spacing: mm per axis, () for pictures; orientation: "RAS", or None for pictures
    channels: what each channel is; shape: (channel, *space)
    """

    def __init__(self, folder: Path) -> None:
        """Open `folder`; IntegrityError when its metadata are not what was published.

        Also when they were published, but are none that a VolumeWriter writes.
        """
        Manifest.read(folder).check(folder, _METADATA)
        self._folder = folder
        with understood(folder, "Make it again with `vqmri ingest`."):
            self._open(folder / STORE)

    def _open(self, path: Path) -> None:
        group = open_group(path)
        attributes: dict[str, Any] = dict(group.attrs)
        if attributes["format_version"] != FORMAT_VERSION:
            raise IntegrityError(
                f"{path} has format version {attributes['format_version']}, this code reads "
                f"{FORMAT_VERSION}. Make it again with `vqmri ingest`."
            )
        self._array = open_array(group, ARRAY, np.dtype(np.float32))
        self.records = [Record(**row) for row in attributes["records"]]
        count = range(self._array.shape[0])
        if strange := [r.index for r in self.records if r.index not in count]:
            raise IndexError(f"there is no volume {strange[0]!r}")
        self.spacing = tuple(float(s) for s in attributes["spacing"])
        self.orientation: str | None = attributes["orientation"]
        self.channels = tuple(
            Channel(row["name"], tuple(row["label_values"])) for row in attributes["channels"]
        )
        self.shape: tuple[int, ...] = self._array.shape[1:]
        self._per_chunk: int = self._array.chunks[0]
        # pictures are drawn at random from everywhere, and all of them are few bytes
        keep = _CACHE_BYTES // (4 * int(np.prod(self._array.chunks))) if self._per_chunk > 1 else 0
        self._chunk = lru_cache(maxsize=keep)(self._read_chunk)

    @property
    def num_classes(self) -> int:
        """Label values of the last channel; 0 when it is not a label map."""
        return len(self.channels[-1].label_values)

    @property
    def num_images(self) -> int:
        """Channels of grey values or colours; the label map, if there is one, stands after them."""
        return self.shape[0] - (self.num_classes > 0)

    def of_split(self, split: str) -> list[Record]:
        """Records of one side of the split, in their order."""
        return [record for record in self.records if record.split == split]

    def read(self, records: Sequence[Record]) -> Float[np.ndarray, "volume channel *space"]:
        """Volumes of some records.

        Raises IntegrityError when one is damaged or absent, OSError when the machine cannot read.
        """
        volumes = np.empty((len(records), *self.shape), dtype=np.float32)
        indices = np.array([record.index for record in records], dtype=np.int64)
        chunks = indices // self._per_chunk
        order = np.argsort(chunks, kind="stable")
        ends = np.flatnonzero(np.diff(chunks[order])) + 1
        for group in np.split(order, ends):
            if len(group) == 0:
                continue
            number = int(chunks[group[0]])
            try:
                chunk = self._chunk(number)
            except (ValueError, RuntimeError, OSError) as error:
                if not is_damage(error):
                    raise
                raise self._fault(records[group[0]], f"damaged ({error})") from error
            volumes[group] = chunk[indices[group] - number * self._per_chunk]
            whole = np.isfinite(volumes[group]).reshape(len(group), -1).all(axis=1)
            if not whole.all():
                raise self._fault(records[group[int(np.argmin(whole))]], "missing")
        return volumes

    def _read_chunk(self, number: int) -> np.ndarray:
        start = number * self._per_chunk
        return np.asarray(self._array[start : start + self._per_chunk])

    def _fault(self, record: Record, fault: str) -> IntegrityError:
        return IntegrityError(
            f"{self._folder}: volume {record.index} ({record.source}) is {fault}. "
            "Make the volumes again with `vqmri ingest`."
        )
