"""Any order of runs, kills, resumes and damage: what is published is whole, and what was asked for.

A machine of hypothesis drives the store as the stage does, through `encode_shard` and its markers,
with a dictionary for a model. A kill is an exception at a drawn point, for no code here catches
one to tidy up; what a kill leaves of half-written files is put there by hand.
"""

import os
import random
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any, NoReturn
from unittest.mock import patch

import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from tests.faults import Record, tell
from vqmri.codes import CodeMap, CodeStore, CodeWriter
from vqmri.codes.store import STORE
from vqmri.errors import IntegrityError, LockedError, VqmriError
from vqmri.outputs import Identity, Manifest, Work, publish, publishing, replace_file, verify
from vqmri.outputs.manifest import MANIFEST, files_below
from vqmri.stages import encode
from vqmri.stages.encode import Shard, encode_shard

MAPS = [
    CodeMap("level_0_gain", (2, 3), 0),
    CodeMap("level_0", (30, 20), 300),  # an item is a chunk
    CodeMap("level_1", (2, 3), 16),  # a shard is a chunk
]
SIZE = 2  # items in a shard
MOST = 7
TOLD: Counter[str] = Counter()


class KilledError(BaseException):
    """As SIGKILL: nothing in the library catches it."""


def kill(*_: Any, **__: Any) -> NoReturn:
    TOLD["kills"] += 1
    raise KilledError


def values(code_map: CodeMap, count: int, seed: int) -> np.ndarray:
    """What the items of a data set are encoded as: that of item i is the same however many."""
    items = []
    for item in range(count):
        chance = np.random.default_rng([seed, item, code_map.num_embeddings])
        drawn = chance.integers(code_map.num_embeddings or 100, size=code_map.grid)
        items.append(drawn.astype(code_map.dtype))
    return np.stack(items)


@cache
def codes(count: int, seed: int) -> list[np.ndarray]:
    return [values(code_map, count, seed) for code_map in MAPS]


def identity(count: int, seed: int) -> Identity:
    return Identity("encode", 1, {"count": count, "seed": seed}, {})


def shards(count: int, seed: int, work: Work) -> list[Shard]:
    """As the stage makes them; `volumes` says how many items there are."""
    return [
        Shard(start, min(start + SIZE, count), seed, {}, str(count), "", str(work.out),
              str(work.state))
        for start in range(0, count, SIZE)
    ]  # fmt: skip


def encoded(shard: Shard) -> list[np.ndarray]:
    """In place of the model."""
    return [v[shard.start : shard.stop] for v in codes(int(shard.volumes), shard.seed)]


@pytest.fixture(autouse=True)
def _quick() -> Iterator[None]:
    """Without a model, and without waiting for the disk: no power is cut here."""
    with patch.object(encode, "_encoded", encoded), patch.object(os, "fsync"):
        yield


def finish(folder: Path, count: int) -> None:
    CodeWriter(folder).finish({"downsamplings": [4, 4, 8], "records": list(range(count))})


@contextmanager
def at(module: Any, name: str, number: int, action: Callable[[], object]) -> Iterator[None]:
    """Do something before call `number` of a function, once."""
    calls, real = iter(range(10**9)), getattr(module, name)

    def counted(*arguments: Any, **options: Any) -> Any:
        if next(calls) == number:
            action()
        return real(*arguments, **options)

    with patch.object(module, name, counted):
        yield


@cache
def unbroken(count: int, seed: int) -> str:
    """The manifest of a run that nothing disturbed."""
    with tempfile.TemporaryDirectory() as place:
        target = Path(place) / "codes"
        with publishing(target, Path(place) / ".work", identity(count, seed)) as work:
            CodeWriter(work.out).create(count, MAPS, SIZE)
            for shard in shards(count, seed, work):
                encode_shard(shard)
            finish(work.out, count)
        return (target / MANIFEST).read_text()


class Runs(RuleBasedStateMachine):
    """One output, and the runs that make it.

    published: count and seed of what readers find, None before the first; hidden: a kill fell
        between the two renames, so that the old one is back from the next start on
    run: count and seed of the run in hand, with its work; markers, maps: of each identity, by
        first item, the shards that are said to be done, and how many maps of the others are there
    """

    def __init__(self) -> None:
        super().__init__()
        TOLD["runs"] += 1
        self.stack = ExitStack()
        self.root = Path(self.stack.enter_context(tempfile.TemporaryDirectory()))
        self.target, self.work_root = self.root / "codes", self.root / ".work"
        self.published: tuple[int, int] | None = None
        self.hidden = False
        self.run: tuple[int, int] | None = None
        self.maps: dict[tuple[int, int], dict[int, int]] = {}
        self.last = (MOST // 2, 0)

    def teardown(self) -> None:
        self.die()
        self.stack.close()

    # what is being done

    def open(self) -> None:
        """Start a process that runs the stage; as its resume, if its work is there."""
        assert self.run
        self.hidden = False
        self.context: AbstractContextManager[Work] = publishing(
            self.target, self.work_root, identity(*self.run)
        )
        self.work = self.context.__enter__()
        self.maps.setdefault(self.run, {})

    def die(self) -> None:
        """End that process as a kill does: the lock goes, and all else stays as it is."""
        if self.run:
            with suppress(KilledError):
                self.context.__exit__(KilledError, KilledError(), None)
        self.run = None

    def todo(self) -> list[Shard]:
        assert self.run
        return shards(*self.run, self.work)

    def note(self, shard: Shard, number: int) -> None:
        """So many maps of a shard are there at least; a marker is one more."""
        assert self.run
        known = self.maps[self.run]
        known[shard.start] = max(known.get(shard.start, 0), number)

    def write(self, shard: Shard) -> None:
        encode_shard(shard)
        self.note(shard, len(MAPS) + 1)

    # rules

    @initialize(count=st.integers(1, MOST), old=st.booleans())
    def first(self, count: int, old: bool) -> None:
        """The size of the data set, and whether there is an output of it already."""
        self.last = (count, 0)
        if old:
            self.begin(0, 0, 9)
            self.end()

    @precondition(lambda self: not self.run)
    @rule(
        more=st.integers(0, 2),
        seed=st.sampled_from([0, 0, 0, 1]),
        arrays=st.sampled_from([9, 9, 9, 0, 1, 2]),
    )
    def begin(self, more: int, seed: int, arrays: int) -> None:
        """Anew, resumed, or with more items than the last one; perhaps killed while it creates."""
        self.last = self.run = (min(self.last[0] + more, MOST), seed)
        self.open()
        with at(zarr.Group, "create_array", arrays, kill):
            try:
                CodeWriter(self.work.out).create(self.run[0], MAPS, SIZE)
            except KilledError:
                self.die()

    @precondition(lambda self: self.run)
    @rule(number=st.integers(0, MOST))
    def shard(self, number: int) -> None:
        self.write(self.todo()[number % len(self.todo())])

    @precondition(lambda self: self.run)
    @rule(number=st.integers(0, MOST), other=st.integers(0, MOST), when=st.integers(0, 2))
    def two_writers(self, number: int, other: int, when: int) -> None:
        """The second one writes its shard between two maps of the first one's."""
        todo = self.todo()
        one, two = todo[number % len(todo)], todo[other % len(todo)]
        with at(zarr, "open_array", when, lambda: self.write(two)):
            self.write(one)

    @precondition(lambda self: self.run)
    @rule(number=st.integers(0, MOST), when=st.integers(0, 4), torn=st.binary(max_size=9))
    def kill_in_a_shard(self, number: int, when: int, torn: bytes) -> None:
        """After some maps; after all of them, before the marker; or as it is being written."""
        shard = self.todo()[number % len(self.todo())]
        place = self.work.out / STORE / MAPS[min(when, 2)].name / "c" / str(shard.start // SIZE)
        assert self.run
        done = self.maps[self.run].get(shard.start, 0) > len(MAPS)
        with (
            at(zarr, "open_array", when, kill) if when < 3 else at(encode, "replace_file", 0, kill),
            suppress(KilledError),
        ):
            encode_shard(shard)
        if not done:
            self.note(shard, min(when, len(MAPS)))
            place.mkdir(parents=True, exist_ok=True)
            (place / "0.1234abcd.partial").write_bytes(torn)
            (self.work.state / ".items.1234abcd.part").write_bytes(torn)
        self.die()

    @precondition(lambda self: self.run)
    @rule(torn=st.binary(max_size=9))
    def a_worker_dies(self, torn: bytes) -> None:
        """And its run goes on with the others."""
        (self.work.out / STORE / "level_1" / "zarr.1234abcd.partial").write_bytes(torn)
        (self.work.out / ".a.part").write_bytes(torn)

    @precondition(lambda self: self.run)
    @rule()
    def a_second_process(self) -> None:
        with (
            pytest.raises(LockedError),
            publishing(self.target, self.work_root, identity(1, 2)),
        ):
            pass

    @precondition(lambda self: self.run)
    @rule()
    def end(self) -> None:
        """Do what is left to do, and publish."""
        self.complete()
        self.context.__exit__(None, None, None)
        self.publishes()
        self.run = None

    @precondition(lambda self: self.run)
    @rule(when=st.sampled_from(["first", "sync", "second", "after"]))
    def kill_at_the_end(self, when: str) -> None:
        """Before the manifest is on the disk, before a rename, or before the old one is removed."""
        self.complete()
        moments = {
            "sync": at(publish, "sync", 0, kill),
            "first": at(os, "rename", 0, kill),
            "second": at(os, "rename", 1, kill),  # there is none without an old one
            "after": at(shutil, "rmtree", 0, kill),
        }
        with moments[when]:
            try:
                self.context.__exit__(None, None, None)
            except KilledError:
                self.hidden = when == "second"
            else:
                when = "after"
        if when == "after":
            self.publishes()
        self.run = None

    def complete(self) -> None:
        assert self.run
        for shard in self.todo():
            self.write(shard)
        finish(self.work.out, self.run[0])

    def publishes(self) -> None:
        TOLD["published"] += 1
        assert self.run
        self.published = self.run
        self.maps.pop(self.run)
        if not any(self.work_root.glob("codes-*")):
            self.maps.clear()

    @precondition(lambda self: self.run)
    @rule()
    def look_at_the_half(self) -> None:
        """Were it published as it is: what was written reads right, and the rest as missing."""
        assert self.run
        half = self.root / "half"
        shutil.copytree(self.work.out, half)
        publish._remove_fragments(half)
        finish(half, self.run[0])
        Manifest.of(half, identity(*self.run)).write(half)
        reader = CodeStore(half)
        for shard in self.todo():
            for item in range(shard.start, shard.stop):
                if self.maps[self.run].get(shard.start, 0) >= len(MAPS):
                    found = reader.read([item])
                    wanted = [v[[item]] for v in codes(*self.run)]
                    assert all(map(np.array_equal, found, wanted))
                else:
                    with pytest.raises(IntegrityError, match="missing or out of range"):
                        reader.read([item])
        shutil.rmtree(half)

    @precondition(lambda self: self.published and not self.hidden)
    @rule(chance=st.randoms(use_true_random=False))
    def damage(self, chance: random.Random) -> None:
        """A byte of any published file, its manifest included; then it is made good again."""
        TOLD["damaged"] += 1
        assert self.published
        name = chance.choice([*files_below(self.target), MANIFEST])
        before = (self.target / name).read_bytes()
        harmed = bytearray(before)
        harmed[chance.randrange(len(before))] ^= chance.randrange(1, 256)
        (self.target / name).write_bytes(harmed)
        with pytest.raises(IntegrityError):
            verify(self.target)
        with suppress(IntegrityError):
            self.read_all()
        (self.target / name).write_bytes(before)

    @precondition(lambda self: self.published and not self.hidden)
    @rule(items=st.lists(st.integers(0, MOST - 1), min_size=1))
    def read(self, items: list[int]) -> None:
        assert self.published
        rows = [item % self.published[0] for item in items]
        found = CodeStore(self.target).read(rows)
        assert all(map(np.array_equal, found, [v[rows] for v in codes(*self.published)]))

    def read_all(self) -> None:
        assert self.published
        reader = CodeStore(self.target)
        assert reader.count == self.published[0]
        found = reader.read(range(reader.count))
        assert all(map(np.array_equal, found, codes(*self.published)))

    # what always holds

    @invariant()
    def readers_find_what_was_published(self) -> None:
        TOLD["steps"] += 1
        if not self.published or self.hidden:
            assert not self.target.exists()
            return
        verify(self.target)
        assert (self.target / MANIFEST).read_text() == unbroken(*self.published)


def run(examples: int, steps: int = 25, phases: tuple[Phase, ...] = tuple(Phase)) -> None:
    run_state_machine_as_test(
        Runs,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            derandomize=True,
            database=None,
            deadline=None,
            phases=phases,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.faults
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("examples", [8, pytest.param(250, marks=pytest.mark.long)])
def test_what_is_published_is_whole_after_any_history(
    examples: int, record_property: Record
) -> None:
    TOLD.clear()
    run(examples)
    print(dict(TOLD))
    assert TOLD["runs"] >= examples
    assert min(TOLD[name] for name in ("kills", "published", "damaged")) >= examples // 3
    tell(record_property, "kills in histories of the code store", TOLD["kills"], TOLD["kills"],
         "what is published is whole and as of an unbroken run")  # fmt: skip
    tell(record_property, "bytes changed between its runs", TOLD["damaged"], TOLD["damaged"],
         "found")  # fmt: skip


def _skip_a_map(self: CodeWriter, start: int, blocks: Any) -> None:
    for code_map, block in list(zip(MAPS, blocks, strict=True))[start == 2 :]:
        array = zarr.open_array(self._path, path=code_map.name, mode="r+")
        array[start : start + len(block)] = block


def _marker_first(shard: Shard) -> int:
    marker = Path(shard.state) / f"items-{shard.start:07d}"
    if not marker.is_file():
        replace_file(marker, b"")
        CodeWriter(Path(shard.out)).write_shard(shard.start, encoded(shard))
    return shard.stop - shard.start


def _nothing(*_: Any) -> None:
    """In place of a step."""


def _without_the_last(count: int, seed: int, work: Work, real: Any = shards) -> list[Shard]:
    found: list[Shard] = real(count, seed, work)
    return found[: max(len(found) - 1, 1)]


def _no_fill(self: CodeWriter, count: int, maps: Any, size: int) -> None:
    group = zarr.open_group(self._path, mode="a", zarr_format=3)
    for m in maps:
        if m.name not in group:
            group.create_array(m.name, shape=(count, *m.grid), shards=(size, *m.grid),
                               chunks=(1, *m.grid), dtype=m.dtype, fill_value=0)  # fmt: skip
    group.attrs.put({"maps": [vars(m) for m in maps]})


Failed = pytest.fail.Exception  # of `pytest.raises`
PLANTED: dict[str, tuple[Any, str, Any]] = {
    "a map of one shard is not written": (CodeWriter, "write_shard", _skip_a_map),
    "the last shard is not written": (None, "shards", _without_the_last),
    "a marker comes before its shard": (None, "encode_shard", _marker_first),
    "fragments are published": (publish, "_remove_fragments", _nothing),
    "a swap that was cut in two stays so": (publish, "_recover", _nothing),
    "a code that cannot be is let through": (CodeMap, "is_valid", lambda *_: True),
    "a changed byte is let through": (Manifest, "check", _nothing),
    "what is missing reads as code 0": (CodeWriter, "create", _no_fill),
}


@pytest.mark.parametrize(
    "fault",
    [f if n < 2 else pytest.param(f, marks=pytest.mark.long) for n, f in enumerate(PLANTED)],
)
def test_the_machine_finds(fault: str) -> None:
    """Faults of the library that are put in on purpose."""
    owner, name, wrong = PLANTED[fault]
    TOLD.clear()
    planted: Any  # may be entered twice
    if owner is None:
        planted = patch.dict(globals(), {name: wrong})
    else:
        planted = patch.object(owner, name, wrong)
    unbroken.cache_clear()
    with planted if name == "create" else ExitStack():  # its own bytes differ, and are not meant
        for count in range(1, MOST + 1):
            unbroken(count, 0)
            unbroken(count, 1)
    with planted, pytest.raises((AssertionError, VqmriError, OSError, Failed)):
        run(100, phases=(Phase.generate,))
    print(f"{fault}: found after {TOLD['runs']} runs")
