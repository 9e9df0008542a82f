"""A bit that flips, a file that is cut: found by `vqmri verify`, and by whoever reads it."""

import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from torch import nn

from tests.faults import Record, tell
from vqmri.cli import main
from vqmri.codes import CodeStore
from vqmri.errors import InputError, IntegrityError
from vqmri.layout import MADE_BY, Layout
from vqmri.outputs import verify
from vqmri.outputs.manifest import MANIFEST, files_below
from vqmri.prior import Prior
from vqmri.scans.store import VolumeStore
from vqmri.training.checkpoint import load_checkpoint, save_checkpoint
from vqmri.training.model_folder import load_model
from vqmri.training.optim import Muon
from vqmri.vqvae import VQVAE

FOUND = "found, and the file or item named"


def read_volumes(folder: Path) -> Any:
    store = VolumeStore(folder)
    return store.read(store.records).tobytes()


def read_codes(folder: Path) -> Any:
    store = CodeStore(folder)
    return [array.tobytes() for array in store.read(range(store.count))]


def read_model(kind: type[nn.Module]) -> Callable[[Path], Any]:
    def read(folder: Path) -> Any:
        model, about = load_model(folder, kind)
        return [v.numpy().tobytes() for v in model.state_dict().values()], about

    return read


READERS: dict[str, Callable[[Path], Any]] = {
    "volumes": read_volumes,
    "codes": read_codes,
    "vqvae": read_model(VQVAE),
    "prior": read_model(Prior),
}


def read_or_fault(folder: Path) -> Any:
    """What the reader of this output reads, or the text of its refusal."""
    try:
        return READERS[folder.name](folder)
    except IntegrityError as error:
        return str(error)


def flip(data: bytes, chance: random.Random) -> bytes:
    at, bit = chance.randrange(len(data)), chance.randrange(8)
    return data[:at] + bytes([data[at] ^ (1 << bit)]) + data[at + 1 :]


def cut(data: bytes, chance: random.Random) -> bytes:
    return data[: chance.randrange(len(data))]


@pytest.mark.faults
@pytest.mark.parametrize(
    ("harm", "count"),
    [
        pytest.param(flip, 150, id="150 flips"),
        pytest.param(cut, 50, id="50 cuts"),
        pytest.param(flip, 2000, id="2000 flips", marks=pytest.mark.long),
        pytest.param(cut, 500, id="500 cuts", marks=pytest.mark.long),
    ],
)
@pytest.mark.timeout(3600)
def test_all_are_found(
    harm: Callable[[bytes, random.Random], bytes],
    count: int,
    copy_of_finished: Layout,
    record_property: Record,
) -> None:
    """In any byte of any file of any output, its manifest included, by turns."""
    chance = random.Random(count)
    folders = [copy_of_finished.output(name) for name in MADE_BY]
    whole = {
        folder.name: READERS[folder.name](folder) for folder in folders if folder.name in READERS
    }
    unread = 0
    for number in range(count):
        folder = folders[number % len(folders)]
        name = chance.choice([*files_below(folder), MANIFEST])
        path = folder / name
        before = path.read_bytes()
        if not before:
            continue
        path.write_bytes(harm(before, chance))
        with pytest.raises((IntegrityError, InputError)) as error:
            verify(folder)
        assert name in str(error.value)
        if folder.name in READERS:
            got = read_or_fault(folder)
            if isinstance(got, str):
                assert str(folder) in got
            else:
                assert got == whole[folder.name]
                unread += 1  # a file, or a part of one, that this reader does not need
        path.write_bytes(before)
    for folder in folders:
        verify(folder)
    assert unread < count / 4
    kind = "bit flips" if harm is flip else "cut files"
    tell(record_property, f"{kind} in outputs and manifests", count, count, FOUND)


@pytest.mark.faults
def test_a_damaged_checkpoint_is_passed_over(tmp_path: Path, record_property: Record) -> None:
    """The one before it is taken, or the training begins anew; damaged weights never."""
    chance = random.Random(0)
    net = nn.Linear(4, 3)
    optimiser = Muon(net, 0.1)
    for step in (1, 2):
        save_checkpoint(tmp_path, step, net, optimiser, [], {})
    paths = sorted(tmp_path.iterdir())
    before = {path: path.read_bytes() for path in paths}
    for _ in range(100):
        hurt = chance.sample(paths, chance.choice([1, 2]))
        for path in hurt:
            path.write_bytes(chance.choice([flip, cut])(before[path], chance))
        left = [number for number, path in enumerate(paths, start=1) if path not in hurt]
        assert load_checkpoint(tmp_path, net, optimiser)[0] == max(left, default=0)
        for path in hurt:
            path.write_bytes(before[path])
    tell(record_property, "damaged checkpoints", 100, 100, "the last good one is gone on from")


@pytest.mark.parametrize("name", MADE_BY)
def test_the_command_has_exit_code_7(name: str, copy_of_finished: Layout) -> None:
    folder = copy_of_finished.output(name)
    file = next(n for n in files_below(folder) if (folder / n).stat().st_size)
    (folder / file).write_bytes(flip((folder / file).read_bytes(), random.Random(name)))
    done = CliRunner().invoke(main, ["verify", str(folder)])
    assert done.exit_code == 7
    assert file in done.output


def test_what_is_whole_is_said_to_be(copy_of_finished: Layout) -> None:
    shutil.rmtree(copy_of_finished.work, ignore_errors=True)
    for name in MADE_BY:
        assert (
            CliRunner().invoke(main, ["verify", str(copy_of_finished.output(name))]).exit_code == 0
        )
