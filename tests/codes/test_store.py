import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vqmri.codes import CodeStore, CodeWriter
from vqmri.codes.schema import FORMAT_VERSION
from vqmri.codes.store import STORE
from vqmri.errors import InputError, IntegrityError
from vqmri.outputs import Identity, Manifest

COUNT = 5
GRIDS = [(4, 6, 5), (2, 3, 2)]
NUM_EMBEDDINGS = [300, 16]
ITEMS_PER_SHARD = 2
ATTRIBUTES = {"downsamplings": [4, 8], "records": [{"index": i} for i in range(COUNT)]}


def drawn_codes(
    grids: Sequence[Sequence[int]] = GRIDS, num_embeddings: Sequence[int] = NUM_EMBEDDINGS
) -> list[np.ndarray]:
    generator = np.random.default_rng(0)
    return [
        generator.integers(number, size=(COUNT, *grid)).astype(np.min_scalar_type(number))
        for grid, number in zip(grids, num_embeddings, strict=True)
    ]


def write_shards(writer: CodeWriter, codes: Sequence[np.ndarray], shards: Sequence[int]) -> None:
    for shard in shards:
        start = shard * ITEMS_PER_SHARD
        writer.write_shard(start, [level[start : start + ITEMS_PER_SHARD] for level in codes])


def seal(folder: Path) -> None:
    Manifest.of(folder, Identity("encode", 1, {}, {})).write(folder)


@pytest.fixture
def codes() -> list[np.ndarray]:
    return drawn_codes()


@pytest.fixture
def folder(tmp_path: Path, codes: list[np.ndarray]) -> Path:
    """A published store of two levels in three shards, the last one not full."""
    writer = CodeWriter(tmp_path)
    writer.create(COUNT, GRIDS, NUM_EMBEDDINGS, ITEMS_PER_SHARD)
    write_shards(writer, codes, [0, 1, 2])
    writer.finish(ATTRIBUTES)
    seal(tmp_path)
    return tmp_path


def shard_files(folder: Path, level: int) -> list[Path]:
    root = folder / STORE / f"level_{level}" / "c"
    return sorted(path for path in root.rglob("*") if path.is_file())


def same(found: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> bool:
    return all(
        one.dtype == two.dtype and np.array_equal(one, two)
        for one, two in zip(found, expected, strict=True)
    )


def test_codes_come_back(folder: Path, codes: list[np.ndarray]) -> None:
    store = CodeStore(folder)
    assert same(store.read(range(COUNT)), codes)
    assert same(store.read([4, 0, 2]), [level[[4, 0, 2]] for level in codes])
    assert store.grids == GRIDS
    assert store.num_embeddings == NUM_EMBEDDINGS
    assert store.count == COUNT
    assert store.attributes == {"format_version": FORMAT_VERSION, **ATTRIBUTES}


def test_codes_of_two_dimensions_come_back(tmp_path: Path) -> None:
    codes = drawn_codes([(7, 5)], [255])
    writer = CodeWriter(tmp_path)
    writer.create(COUNT, [(7, 5)], [255], ITEMS_PER_SHARD)
    write_shards(writer, codes, [0, 1, 2])
    writer.finish({"downsamplings": [4]})
    seal(tmp_path)
    assert same(CodeStore(tmp_path).read(range(COUNT)), codes)


def test_equal_codes_make_equal_bytes(
    folder: Path, codes: list[np.ndarray], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever the order of the shards."""
    other = tmp_path_factory.mktemp("other")
    writer = CodeWriter(other)
    writer.create(COUNT, GRIDS, NUM_EMBEDDINGS, ITEMS_PER_SHARD)
    write_shards(writer, codes, [2, 0, 1])
    writer.finish(ATTRIBUTES)
    seal(other)
    assert Manifest.read(other) == Manifest.read(folder)


def test_a_second_create_keeps_what_is_there(tmp_path: Path, codes: list[np.ndarray]) -> None:
    """As when a killed run is resumed."""
    for shards in ([0], [1, 2]):
        writer = CodeWriter(tmp_path)
        writer.create(COUNT, GRIDS, NUM_EMBEDDINGS, ITEMS_PER_SHARD)
        write_shards(writer, codes, shards)
    writer.finish(ATTRIBUTES)
    seal(tmp_path)
    assert same(CodeStore(tmp_path).read(range(COUNT)), codes)


@pytest.mark.parametrize("level", [0, 1])
def test_a_flipped_bit_is_never_silent(folder: Path, codes: list[np.ndarray], level: int) -> None:
    file = shard_files(folder, level)[1]  # items 2 and 3
    whole = file.read_bytes()
    positions = random.Random(level).sample(range(len(whole)), 30)
    caught = 0
    for position in positions:
        damaged = bytearray(whole)
        damaged[position] ^= 1 << position % 8
        file.write_bytes(damaged)
        store = CodeStore(folder)
        try:
            found = store.read([2, 3])
        except IntegrityError:
            caught += 1
        else:
            assert same(found, [level_codes[[2, 3]] for level_codes in codes])
        assert same(store.read([0, 1, 4]), [level_codes[[0, 1, 4]] for level_codes in codes])
    # The store writes nothing but codes and checksums, so that there is hardly an idle byte.
    assert caught >= 28


def test_a_shard_cut_short_is_found(folder: Path) -> None:
    file = shard_files(folder, 0)[0]
    whole = file.read_bytes()
    for length in (0, 1, 4, 20, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:length])
        with pytest.raises(IntegrityError, match="level_0"):
            CodeStore(folder).read([0, 1])


@pytest.mark.parametrize("level", [0, 1])
def test_a_missing_shard_is_no_code(folder: Path, codes: list[np.ndarray], level: int) -> None:
    shard_files(folder, level)[1].unlink()
    store = CodeStore(folder)
    for item in (2, 3):
        with pytest.raises(IntegrityError, match=f"level_{level} .* missing or out of range"):
            store.read([0, item])
    assert same(store.read([0, 1, 4]), [level_codes[[0, 1, 4]] for level_codes in codes])


@pytest.mark.parametrize("number", [255, 256, 65535, 65536])
def test_the_largest_code_is_a_code_and_the_fill_value_is_none(tmp_path: Path, number: int) -> None:
    writer = CodeWriter(tmp_path)
    writer.create(2, [(2, 2, 2)], [number], 1)
    largest = np.full((1, 2, 2, 2), number - 1, dtype=np.min_scalar_type(number))
    writer.write_shard(0, [largest])
    writer.finish({"downsamplings": [4]})
    seal(tmp_path)
    store = CodeStore(tmp_path)
    assert same(store.read([0]), [largest])
    with pytest.raises(IntegrityError, match="missing or out of range"):
        store.read([1])


def test_a_code_out_of_range_is_found(tmp_path: Path) -> None:
    writer = CodeWriter(tmp_path)
    writer.create(1, [(2, 2, 2)], [16], 1)
    writer.write_shard(0, [np.full((1, 2, 2, 2), 17, dtype=np.uint8)])
    writer.finish({"downsamplings": [4]})
    seal(tmp_path)
    with pytest.raises(IntegrityError, match="out of range"):
        CodeStore(tmp_path).read([0])


@pytest.mark.parametrize("name", ["zarr.json", "level_0/zarr.json", "level_1/zarr.json"])
def test_changed_metadata_are_found(folder: Path, name: str) -> None:
    file = folder / STORE / name
    file.write_text(file.read_text() + " ")
    with pytest.raises(IntegrityError, match="has changed"):
        CodeStore(folder)
    file.unlink()
    with pytest.raises(IntegrityError, match="is missing"):
        CodeStore(folder)


def test_another_format_version_is_refused(folder: Path) -> None:
    file = folder / STORE / "zarr.json"
    metadata: dict[str, Any] = json.loads(file.read_text())
    metadata["attributes"]["format_version"] = FORMAT_VERSION + 1
    file.write_text(json.dumps(metadata))
    seal(folder)
    with pytest.raises(IntegrityError, match=f"format version {FORMAT_VERSION + 1}"):
        CodeStore(folder)


def test_what_was_not_published_is_no_store(tmp_path: Path) -> None:
    CodeWriter(tmp_path).create(COUNT, GRIDS, NUM_EMBEDDINGS, ITEMS_PER_SHARD)
    with pytest.raises(InputError):
        CodeStore(tmp_path)
