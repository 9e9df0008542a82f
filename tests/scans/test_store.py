import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vqmri.errors import InputError, IntegrityError
from vqmri.outputs import Identity, Manifest
from vqmri.scans.store import (
    ARRAY,
    FORMAT_VERSION,
    STORE,
    VolumeStore,
    VolumeWriter,
    shard_range,
    volumes_per_chunk,
    volumes_per_shard,
)
from vqmri.scans.volume import Channel, Record

SHAPE = (4, 6, 5)
PER_SHARD = volumes_per_shard((1, *SHAPE))
COUNT = PER_SHARD + 3
IMAGE = (Channel("image"),)


def record(index: int) -> Record:
    return Record(
        index=index,
        subject=f"sub-{index // 2}",
        source=f"images/{index}.nii.gz",
        sha256=f"{index:064d}",
        shape=[5, 6, 7],
        affine=np.diag([-1.0, 1, 1, 1]).tolist(),
        normalised_affine=np.eye(4).tolist(),
        field_of_view=[[0, 4], [1, 6], [0, 5]],
        covariates={"age": 20.5, "sex": None},
        label=None,
        split="train" if index % 3 else "held_out",
    )


def seal(folder: Path) -> None:
    Manifest.of(folder, Identity("ingest", 1, {}, {})).write(folder)


@pytest.fixture
def volumes() -> np.ndarray:
    return np.random.default_rng(0).random((COUNT, 1, *SHAPE), dtype=np.float32)


def write_shard(writer: VolumeWriter, volumes: np.ndarray, shard: int) -> None:
    writer.write_shard(shard, volumes[list(shard_range(shard, COUNT, PER_SHARD))])


@pytest.fixture
def folder(tmp_path: Path, volumes: np.ndarray) -> Path:
    """A published store of two shards, the second one not full."""
    writer = VolumeWriter(tmp_path)
    writer.create(COUNT, 1, SHAPE)
    write_shard(writer, volumes, 0)
    write_shard(writer, volumes, 1)
    writer.finish([record(i) for i in range(COUNT)], (1.0, 1.5, 2.0), IMAGE)
    seal(tmp_path)
    return tmp_path


def shard_files(folder: Path) -> list[Path]:
    root = folder / STORE / ARRAY / "c"
    return sorted(path for path in root.rglob("*") if path.is_file())


def test_shards_cover_every_volume_once() -> None:
    for count in (1, 7, 8, 9, 16, 17):
        shards = range(-(-count // PER_SHARD))
        assert [i for shard in shards for i in shard_range(shard, count, PER_SHARD)] == list(
            range(count)
        )


def test_volumes_and_records_come_back(folder: Path, volumes: np.ndarray) -> None:
    store = VolumeStore(folder)
    assert store.records == [record(i) for i in range(COUNT)]
    assert store.spacing == (1.0, 1.5, 2.0)
    assert store.shape == (1, *SHAPE)
    found = store.read(store.records)
    assert found.dtype == np.float32
    assert np.array_equal(found, volumes)
    some = [store.records[i] for i in (9, 0, 4)]
    assert np.array_equal(store.read(some), volumes[[9, 0, 4]])


def test_the_sides_of_the_split(folder: Path) -> None:
    store = VolumeStore(folder)
    assert [r.index for r in store.of_split("held_out")] == [0, 3, 6, 9]
    assert len(store.of_split("train")) == COUNT - 4


@pytest.mark.parametrize(
    ("shape", "chunk", "shard"),
    [
        ((1, 32, 40, 36), 1, 8),
        ((3, 2, 2, 2), 1, 8),
        ((1, 28, 28), 256, 4096),
        ((3, 32, 32), 64, 1024),
        ((3, 512, 512), 1, 16),
    ],
)
def test_pictures_lie_together(shape: tuple[int, ...], chunk: int, shard: int) -> None:
    assert volumes_per_chunk(shape) == chunk
    assert volumes_per_shard(shape) == shard


def test_what_the_channels_are_comes_back(tmp_path: Path) -> None:
    channels = (Channel("image"), Channel("T2w"), Channel("dseg", (0, 3, -1)))
    data = np.random.default_rng(0).random((2, 3, *SHAPE), dtype=np.float32)
    writer = VolumeWriter(tmp_path)
    writer.create(2, 3, SHAPE)
    writer.write_shard(0, data)
    writer.finish([record(i) for i in range(2)], (1.0, 1.5, 2.0), channels)
    seal(tmp_path)
    store = VolumeStore(tmp_path)
    assert store.channels == channels
    assert store.num_classes == 3
    assert store.orientation == "RAS"
    assert np.array_equal(store.read(store.records), data)


PICTURES = 300
PICTURE_SHAPE = (7, 5)


@pytest.fixture
def pictures() -> np.ndarray:
    return np.random.default_rng(0).random((PICTURES, 1, *PICTURE_SHAPE), dtype=np.float32)


@pytest.fixture
def picture_folder(tmp_path: Path, pictures: np.ndarray) -> Path:
    """A published store of pictures in two chunks, the second one not full."""
    writer = VolumeWriter(tmp_path)
    writer.create(PICTURES, 1, PICTURE_SHAPE)
    writer.write_shard(0, pictures)
    writer.finish([record(i) for i in range(PICTURES)], (), IMAGE)
    seal(tmp_path)
    return tmp_path


def test_pictures_come_back(picture_folder: Path, pictures: np.ndarray) -> None:
    store = VolumeStore(picture_folder)
    assert np.array_equal(store.read(store.records), pictures)
    assert (store.spacing, store.orientation, store.num_classes) == ((), None, 0)
    assert store.channels == IMAGE
    assert store.shape == (1, *PICTURE_SHAPE)
    assert store.read([]).shape == (0, 1, *PICTURE_SHAPE)


def test_many_at_once_are_what_each_is_alone(picture_folder: Path, pictures: np.ndarray) -> None:
    chosen = np.random.default_rng(1).integers(0, PICTURES, 500)  # some of them more than once
    store = VolumeStore(picture_folder)
    found = store.read([store.records[i] for i in chosen])
    assert np.array_equal(found, pictures[chosen])
    alone = [VolumeStore(picture_folder).read([store.records[i]])[0] for i in chosen[:20]]
    assert np.array_equal(found[:20], alone)


def test_a_damaged_chunk_of_pictures_is_found(picture_folder: Path, pictures: np.ndarray) -> None:
    (file,) = shard_files(picture_folder)
    whole = file.read_bytes()
    for position in (5, len(whole) // 3):
        damaged = bytearray(whole)
        damaged[position] ^= 1
        file.write_bytes(damaged)
        store = VolumeStore(picture_folder)
        with pytest.raises(IntegrityError, match=r"volume \d+ \(images/.* is damaged"):
            store.read(store.records)
        second = store.records[256:]
        assert np.array_equal(store.read(second), pictures[256:])


def test_a_picture_that_was_refused_is_found_out(tmp_path: Path, pictures: np.ndarray) -> None:
    pictures[[17, 299]] = np.nan
    writer = VolumeWriter(tmp_path)
    writer.create(PICTURES, 1, PICTURE_SHAPE)
    writer.write_shard(0, pictures)
    good = [record(i) for i in range(PICTURES) if i not in (17, 299)]
    writer.finish(good, (), IMAGE)
    seal(tmp_path)
    store = VolumeStore(tmp_path)
    assert np.isfinite(store.read(store.records)).all()
    with pytest.raises(IntegrityError, match=r"volume 17 .* is missing"):
        store.read([record(16), record(18), record(17)])


def test_equal_volumes_make_equal_bytes(
    folder: Path, volumes: np.ndarray, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever the order of the shards."""
    other = tmp_path_factory.mktemp("other")
    writer = VolumeWriter(other)
    writer.create(COUNT, 1, SHAPE)
    write_shard(writer, volumes, 1)
    write_shard(writer, volumes, 0)
    writer.finish([record(i) for i in range(COUNT)], (1.0, 1.5, 2.0), IMAGE)
    seal(other)
    assert Manifest.read(other) == Manifest.read(folder)


def test_a_second_create_keeps_what_is_there(tmp_path: Path, volumes: np.ndarray) -> None:
    """As when a killed run is resumed."""
    for shard in (0, 1):
        writer = VolumeWriter(tmp_path)
        writer.create(COUNT, 1, SHAPE)
        write_shard(writer, volumes, shard)
    writer.finish([record(i) for i in range(COUNT)], (1.0, 1.5, 2.0), IMAGE)
    seal(tmp_path)
    store = VolumeStore(tmp_path)
    assert np.array_equal(store.read(store.records), volumes)


def test_a_flipped_bit_is_never_silent(folder: Path, volumes: np.ndarray) -> None:
    file = shard_files(folder)[1]
    whole = file.read_bytes()
    caught = 0
    for position in random.Random(0).sample(range(len(whole)), 30):
        damaged = bytearray(whole)
        damaged[position] ^= 1 << position % 8
        file.write_bytes(damaged)
        store = VolumeStore(folder)
        try:
            found = store.read(store.records[PER_SHARD:])
        except IntegrityError:
            caught += 1
        else:
            assert np.array_equal(found, volumes[PER_SHARD:])
        intact = store.read(store.records[:PER_SHARD])
        assert np.array_equal(intact, volumes[:PER_SHARD])
    # The store writes nothing but voxels and checksums, so that there is hardly an idle byte.
    assert caught >= 28


def test_damage_names_the_scan(folder: Path) -> None:
    file = shard_files(folder)[0]
    damaged = bytearray(file.read_bytes())
    damaged[20] ^= 1
    file.write_bytes(damaged)
    store = VolumeStore(folder)
    with pytest.raises(IntegrityError, match=r"images/\d\.nii\.gz\) is damaged"):
        store.read(store.records)


def test_a_shard_cut_short_is_found(folder: Path) -> None:
    file = shard_files(folder)[0]
    whole = file.read_bytes()
    for length in (0, 1, 4, 20, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:length])
        store = VolumeStore(folder)
        with pytest.raises(IntegrityError):
            store.read(store.records[:1])


def test_a_missing_shard_is_no_volume(folder: Path, volumes: np.ndarray) -> None:
    shard_files(folder)[1].unlink()
    store = VolumeStore(folder)
    for item in store.records[PER_SHARD:]:
        with pytest.raises(IntegrityError, match=f"volume {item.index} .* is missing"):
            store.read([item])
    first = store.records[:PER_SHARD]
    assert np.array_equal(store.read(first), volumes[:PER_SHARD])


def test_a_refused_scan_is_no_volume(tmp_path: Path, volumes: np.ndarray) -> None:
    """Its slot holds NaN and no record; a record that points there is found out."""
    volumes[2] = np.nan
    writer = VolumeWriter(tmp_path)
    writer.create(COUNT, 1, SHAPE)
    write_shard(writer, volumes, 0)
    write_shard(writer, volumes, 1)
    writer.finish([record(i) for i in range(COUNT) if i != 2], (1.0, 1.5, 2.0), IMAGE)
    seal(tmp_path)
    store = VolumeStore(tmp_path)
    assert np.isfinite(store.read(store.records)).all()
    with pytest.raises(IntegrityError, match=r"volume 2 .* is missing"):
        store.read([record(2)])


@pytest.mark.parametrize("name", ["zarr.json", f"{ARRAY}/zarr.json"])
def test_changed_metadata_are_found(folder: Path, name: str) -> None:
    file = folder / STORE / name
    file.write_text(file.read_text() + " ")
    with pytest.raises(IntegrityError, match="has changed"):
        VolumeStore(folder)
    file.unlink()
    with pytest.raises(IntegrityError, match="is missing"):
        VolumeStore(folder)


def test_another_format_version_is_refused(folder: Path) -> None:
    file = folder / STORE / "zarr.json"
    metadata: dict[str, Any] = json.loads(file.read_text())
    metadata["attributes"]["format_version"] = FORMAT_VERSION + 1
    file.write_text(json.dumps(metadata))
    seal(folder)
    with pytest.raises(IntegrityError, match=f"format version {FORMAT_VERSION + 1}"):
        VolumeStore(folder)


def test_what_was_not_published_is_no_store(tmp_path: Path) -> None:
    VolumeWriter(tmp_path).create(COUNT, 1, SHAPE)
    with pytest.raises(InputError):
        VolumeStore(tmp_path)
