import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from vqmri.codes import CodeMap, CodeStore, CodeWriter
from vqmri.codes.schema import FORMAT_VERSION
from vqmri.codes.store import STORE, _runs
from vqmri.errors import InputError, IntegrityError
from vqmri.outputs import Identity, Manifest

COUNT = 5
MAPS = [
    CodeMap("level_0_gain", (8, 9, 10), 0),  # one item in a chunk, as in the next
    CodeMap("level_0", (8, 9, 10), 300),
    CodeMap("level_1_gain", (2, 3, 2), 4),  # a whole shard in a chunk
    CodeMap("level_1", (2, 3, 2), 16),
]
NAMES = [code_map.name for code_map in MAPS]
ITEMS_PER_SHARD = 2
ATTRIBUTES = {"downsamplings": [4, 4, 8, 8], "records": [{"index": i} for i in range(COUNT)]}


def drawn_codes(maps: Sequence[CodeMap] = MAPS) -> list[np.ndarray]:
    """Codes, and for real gains numbers, in the types that they are stored in."""
    generator = np.random.default_rng(0)
    return [
        (
            generator.integers(m.num_embeddings, size=(COUNT, *m.grid))
            if m.num_embeddings
            else generator.normal(1.0, 0.3, size=(COUNT, *m.grid))
        ).astype(m.dtype)
        for m in maps
    ]


def write_shards(writer: CodeWriter, codes: Sequence[np.ndarray], shards: Sequence[int]) -> None:
    for shard in shards:
        start = shard * ITEMS_PER_SHARD
        writer.write_shard(start, [values[start : start + ITEMS_PER_SHARD] for values in codes])


def seal(folder: Path) -> None:
    Manifest.of(folder, Identity("encode", 1, {}, {})).write(folder)


@pytest.fixture
def codes() -> list[np.ndarray]:
    return drawn_codes()


@pytest.fixture
def folder(tmp_path: Path, codes: list[np.ndarray]) -> Path:
    """A published store of four maps in three shards, the last one not full."""
    writer = CodeWriter(tmp_path)
    writer.create(COUNT, MAPS, ITEMS_PER_SHARD)
    write_shards(writer, codes, [0, 1, 2])
    writer.finish(ATTRIBUTES)
    seal(tmp_path)
    return tmp_path


def shard_files(folder: Path, name: str) -> list[Path]:
    root = folder / STORE / name / "c"
    return sorted(path for path in root.rglob("*") if path.is_file())


def same(found: Sequence[np.ndarray], expected: Sequence[np.ndarray]) -> bool:
    return all(
        one.dtype == two.dtype and np.array_equal(one, two)
        for one, two in zip(found, expected, strict=True)
    )


def test_codes_and_gains_come_back(folder: Path, codes: list[np.ndarray]) -> None:
    store = CodeStore(folder)
    assert same(store.read(range(COUNT)), codes)
    assert same(store.read([4, 0, 2]), [values[[4, 0, 2]] for values in codes])
    assert same(store.read([1, 2, 3, 0, 0]), [values[[1, 2, 3, 0, 0]] for values in codes])
    assert store.maps == MAPS
    assert store.grids == [(8, 9, 10), (8, 9, 10), (2, 3, 2), (2, 3, 2)]
    assert store.num_embeddings == [0, 300, 4, 16]
    assert store.count == COUNT
    attributes = {name: store.attributes[name] for name in ATTRIBUTES}
    assert attributes == ATTRIBUTES
    assert store.attributes["format_version"] == FORMAT_VERSION


def test_what_models_return_is_stored_in_the_type_of_its_map(tmp_path: Path) -> None:
    codes = drawn_codes()
    wide = [v.astype(np.int64) if v.dtype.kind == "u" else v for v in codes]
    writer = CodeWriter(tmp_path)
    writer.create(COUNT, MAPS, ITEMS_PER_SHARD)
    write_shards(writer, wide, [0, 1, 2])
    writer.finish(ATTRIBUTES)
    seal(tmp_path)
    assert same(CodeStore(tmp_path).read(range(COUNT)), codes)


@pytest.mark.parametrize("grid", [(7, 5), (30, 20)])
def test_codes_of_two_dimensions_come_back(tmp_path: Path, grid: tuple[int, ...]) -> None:
    maps = [CodeMap("level_0_gain", grid, 0), CodeMap("level_0", grid, 255)]
    codes = drawn_codes(maps)
    writer = CodeWriter(tmp_path)
    writer.create(COUNT, maps, ITEMS_PER_SHARD)
    write_shards(writer, codes, [0, 1, 2])
    writer.finish({"downsamplings": [4, 4]})
    seal(tmp_path)
    assert same(CodeStore(tmp_path).read(range(COUNT)), codes)


@pytest.mark.parametrize(
    ("indices", "expected"),
    [
        ([], []),
        ([3], [(3, 4)]),
        ([0, 1, 2], [(0, 3)]),
        ([4, 0, 1, 5, 6, 2], [(4, 5), (0, 2), (5, 7), (2, 3)]),
        ([2, 1, 0], [(2, 3), (1, 2), (0, 1)]),
        ([1, 1, 2], [(1, 2), (1, 3)]),
    ],
)
def test_neighbours_are_read_at_once_and_the_order_is_kept(
    indices: list[int], expected: list[tuple[int, int]]
) -> None:
    assert _runs(indices) == expected


def test_equal_codes_make_equal_bytes(
    folder: Path, codes: list[np.ndarray], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Whatever the order of the shards."""
    other = tmp_path_factory.mktemp("other")
    writer = CodeWriter(other)
    writer.create(COUNT, MAPS, ITEMS_PER_SHARD)
    write_shards(writer, codes, [2, 0, 1])
    writer.finish(ATTRIBUTES)
    seal(other)
    assert Manifest.read(other) == Manifest.read(folder)


def test_a_second_create_keeps_what_is_there(tmp_path: Path, codes: list[np.ndarray]) -> None:
    """As when a killed run is resumed."""
    for shards in ([0], [1, 2]):
        writer = CodeWriter(tmp_path)
        writer.create(COUNT, MAPS, ITEMS_PER_SHARD)
        write_shards(writer, codes, shards)
    writer.finish(ATTRIBUTES)
    seal(tmp_path)
    assert same(CodeStore(tmp_path).read(range(COUNT)), codes)


@pytest.mark.parametrize("name", NAMES)
def test_a_flipped_bit_is_never_silent(folder: Path, codes: list[np.ndarray], name: str) -> None:
    file = shard_files(folder, name)[1]  # items 2 and 3
    whole = file.read_bytes()
    positions = random.Random(name).sample(range(len(whole)), 30)
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
            assert same(found, [values[[2, 3]] for values in codes])
        assert same(store.read([0, 1, 4]), [values[[0, 1, 4]] for values in codes])
    # The store writes nothing but codes and checksums, so that there is hardly an idle byte.
    assert caught >= 28


@pytest.mark.parametrize("name", NAMES)
def test_a_shard_cut_short_is_found(folder: Path, name: str) -> None:
    file = shard_files(folder, name)[0]
    whole = file.read_bytes()
    for length in (0, 1, 4, 20, len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:length])
        with pytest.raises(IntegrityError, match=f"{name} has a chunk among items 0 to 1"):
            CodeStore(folder).read([0, 1])


@pytest.mark.parametrize("name", NAMES)
def test_a_missing_shard_is_no_code_and_no_gain(
    folder: Path, codes: list[np.ndarray], name: str
) -> None:
    shard_files(folder, name)[1].unlink()
    store = CodeStore(folder)
    for item in (2, 3):
        with pytest.raises(IntegrityError, match=rf"{name} has .* missing or out of range"):
            store.read([0, item])
    assert same(store.read([0, 1, 4]), [values[[0, 1, 4]] for values in codes])


@pytest.mark.parametrize("code_map", MAPS, ids=NAMES)
def test_an_item_that_was_never_written_to_its_shard_is_missing(
    tmp_path: Path, code_map: CodeMap
) -> None:
    """Whether it has a chunk of its own, which is then absent, or is a part of one."""
    (values,) = drawn_codes([code_map])
    writer = CodeWriter(tmp_path)
    writer.create(COUNT, [code_map], ITEMS_PER_SHARD)
    writer.write_shard(0, [values[:1]])
    writer.finish(ATTRIBUTES)
    seal(tmp_path)
    store = CodeStore(tmp_path)
    assert same(store.read([0]), [values[:1]])
    with pytest.raises(IntegrityError, match=rf"{code_map.name} has .* missing or out of range"):
        store.read([1])


@pytest.mark.parametrize("number", [255, 256, 65535, 65536])
def test_the_largest_code_is_a_code_and_the_fill_value_is_none(tmp_path: Path, number: int) -> None:
    writer = CodeWriter(tmp_path)
    writer.create(2, [CodeMap("level_0", (2, 2, 2), number)], 1)
    largest = np.full((1, 2, 2, 2), number - 1, dtype=np.min_scalar_type(number))
    writer.write_shard(0, [largest])
    writer.finish({"downsamplings": [4]})
    seal(tmp_path)
    store = CodeStore(tmp_path)
    assert same(store.read([0]), [largest])
    with pytest.raises(IntegrityError, match="missing or out of range"):
        store.read([1])


@pytest.mark.parametrize(("number", "value"), [(16, 17), (0, np.nan), (0, np.inf)])
def test_what_cannot_have_been_written_is_found(tmp_path: Path, number: int, value: float) -> None:
    code_map = CodeMap("level_0", (2, 2, 2), number)
    block = np.ones((1, 2, 2, 2), dtype=code_map.dtype)
    block[0, 1, 0, 1] = value
    writer = CodeWriter(tmp_path)
    writer.create(1, [code_map], 1)
    writer.write_shard(0, [block])
    writer.finish({"downsamplings": [4]})
    seal(tmp_path)
    with pytest.raises(IntegrityError, match="out of range"):
        CodeStore(tmp_path).read([0])


@pytest.mark.parametrize("name", ["zarr.json", "level_0_gain/zarr.json", "level_1/zarr.json"])
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
    CodeWriter(tmp_path).create(COUNT, MAPS, ITEMS_PER_SHARD)
    with pytest.raises(InputError):
        CodeStore(tmp_path)
