"""The power goes: what a stage says is done has come to the disk before."""

import os
import shutil
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import tiny_values
from tests.faults import Record, tell
from vqmri.codes import CodeMap, CodeWriter
from vqmri.codes.store import STORE as CODES
from vqmri.errors import IntegrityError
from vqmri.layout import MADE_BY, Layout
from vqmri.params import Params
from vqmri.scans.store import STORE as VOLUMES
from vqmri.scans.store import VolumeWriter
from vqmri.stages import STAGES

OUTPUT_OF = {stage: output for output, stage in MADE_BY.items()}
MARKERS = {"ingest": "out/outcomes/", "encode": "state/items-", "sample": "state/batch-"}


class Disk:
    """What would be left of a work folder without power: what was synced since it last changed."""

    def __init__(self) -> None:
        self.synced: dict[int, int] = {}
        self.fsync = os.fsync

    def sync(self, descriptor: int) -> None:
        self.fsync(descriptor)
        state = os.fstat(descriptor)
        self.synced[state.st_ino] = state.st_mtime_ns

    def lost(self, paths: list[Path]) -> list[Path]:
        """Files and folders that would not be as they are now."""
        states = {path: path.stat() for path in paths}
        return [p for p, s in states.items() if self.synced.get(s.st_ino) != s.st_mtime_ns]


def matters(work: Path, marker: Path) -> list[Path]:
    """All of a work folder, but the marker on its way, and what a rerun makes anew."""
    paths = [work / "out", *(work / "out").rglob("*"), *(work / "state").rglob("*")]
    return [
        path for path in paths
        if path.suffix != ".part" and path != marker.parent and "scratch" not in path.parts
    ]  # fmt: skip


@pytest.mark.faults
@pytest.mark.parametrize("stage", MARKERS)
def test_a_shard_is_on_the_disk_before_it_is_said_to_be_done(
    stage: str,
    copy_of_finished: Layout,
    monkeypatch: pytest.MonkeyPatch,
    record_property: Record,
) -> None:
    data, disk = copy_of_finished, Disk()
    manifest = data.output(OUTPUT_OF[stage]) / "MANIFEST.json"
    expected = manifest.read_bytes()
    shutil.rmtree(manifest.parent)
    shutil.rmtree(data.work)
    replace: Callable[..., None] = os.replace
    moments: list[list[Path]] = []

    def looked_at(source: Any, target: Any, **options: Any) -> None:
        if MARKERS[stage] in str(target):
            marker = Path(target)
            (work,) = data.work.glob(f"{OUTPUT_OF[stage]}-*")
            moments.append(disk.lost(matters(work, marker)))
        replace(source, target, **options)

    monkeypatch.setattr(os, "fsync", disk.sync)
    monkeypatch.setattr(os, "replace", looked_at)
    module, name = STAGES[stage].split(":")
    getattr(import_module(module), name)(Params.model_validate(tiny_values()), data)
    assert manifest.read_bytes() == expected
    assert moments
    assert [paths for paths in moments if paths] == []
    tell(record_property, "power cuts when a shard is said to be done", len(moments), len(moments),
         "all of it is on the disk")  # fmt: skip


@pytest.mark.parametrize("name", ["zarr.json", "level_0/zarr.json"])
def test_metadata_that_a_power_cut_emptied_are_told_with_the_way_out(
    tmp_path: Path, name: str
) -> None:
    writer = CodeWriter(tmp_path)
    maps = [CodeMap("level_0", (2, 3, 2), 16)]
    writer.create(4, maps, 2)
    (tmp_path / CODES / name).write_bytes(b"")
    with pytest.raises(IntegrityError, match="vqmri clean"):
        writer.create(4, maps, 2)


@pytest.mark.parametrize("name", ["zarr.json", "volumes/zarr.json"])
def test_so_are_those_of_volumes(tmp_path: Path, name: str) -> None:
    writer = VolumeWriter(tmp_path)
    writer.create(4, 1, (8, 8, 8))
    (tmp_path / VOLUMES / name).write_bytes(b"")
    with pytest.raises(IntegrityError, match="vqmri clean"):
        writer.create(4, 1, (8, 8, 8))
