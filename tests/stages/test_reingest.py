"""Ingesting again: what has not changed is neither read nor made again."""

import csv
import errno
import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import psutil
import pytest
import zarr

from tests.conftest import tiny_values
from vqmri.layout import Layout
from vqmri.outputs import verify
from vqmri.params import Params
from vqmri.scans import image_file
from vqmri.scans.store import VolumeStore
from vqmri.stages.ingest import ingest
from vqmri.stages.workers import processes


def write(path: Path, seed: int) -> None:
    data = np.random.default_rng(seed).random((14, 26, 16)).astype(np.float32)
    path.parent.mkdir(parents=True, exist_ok=True)
    image: Any = nib.Nifti1Image(data, np.diag([10.0, 10.0, 10.0, 1.0]))
    nib.save(image, path)


def params(**changes: Any) -> Params:
    values = tiny_values()
    source = {"kind": "nifti", "images": "*.nii.gz"}
    values["ingest"] |= {"raw": "raw", "source": source, **changes}
    return Params.model_validate(values)


@pytest.fixture
def project(tmp_path: Path) -> Layout:
    """Twenty scans: three shards."""
    for number in range(20):
        write(tmp_path / f"raw/p{number:02d}.nii.gz", number)
    return Layout(tmp_path)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The scans whose voxels were read."""
    found: list[str] = []
    read = image_file.read

    def noted(path: Path, dtype: Any, **options: Any) -> Any:
        found.append(path.name)
        return read(path, dtype, **options)

    monkeypatch.setattr(image_file, "read", noted)
    return found


def published(data: Layout) -> dict[str, bytes]:
    folder = data.output("volumes")
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def afresh(data: Layout, root: Path, settings: Params) -> dict[str, bytes]:
    """What another project makes of the same scans, with no past."""
    root.mkdir()
    (root / "raw").symlink_to(data.root / "raw")
    other = Layout(root)
    ingest(settings, other)
    return published(other)


def test_nothing_is_read_or_written_when_nothing_changed(
    project: Layout, opened: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    first = ingest(params(), project)
    assert len(opened) == 20
    before, stamp = published(project), project.output("volumes").stat().st_mtime_ns
    opened.clear()
    assert ingest(params(), project) == first
    assert opened == []
    assert published(project) == before
    assert project.output("volumes").stat().st_mtime_ns == stamp
    assert "already" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["aa.nii.gz", "p07a.nii.gz", "zz.nii.gz"])
def test_a_new_scan_is_added_without_the_others_being_read(
    project: Layout, tmp_path: Path, opened: list[str], name: str
) -> None:
    ingest(params(), project)
    opened.clear()
    write(project.root / "raw" / name, 99)
    assert ingest(params(), project)["volumes"] == 21
    assert opened == [name]
    assert published(project) == afresh(project, tmp_path / "other", params())


def test_a_scan_that_is_gone_or_changed_is(
    project: Layout, tmp_path: Path, opened: list[str]
) -> None:
    ingest(params(), project)
    opened.clear()
    (project.root / "raw/p03.nii.gz").unlink()
    write(project.root / "raw/p11.nii.gz", 99)
    assert ingest(params(), project)["volumes"] == 19
    assert opened == ["p11.nii.gz"]
    assert published(project) == afresh(project, tmp_path / "other", params())


def test_another_split_needs_no_scan_and_another_shape_all(
    project: Layout, tmp_path: Path, opened: list[str]
) -> None:
    ingest(params(), project)
    opened.clear()
    ingest(params(held_out=0.5), project)
    assert opened == []
    assert len(VolumeStore(project.output("volumes")).of_split("held_out")) == 10
    assert published(project) == afresh(project, tmp_path / "other", params(held_out=0.5))
    opened.clear()
    ingest(params(shape=[12, 24, 16]), project)
    assert len(opened) == 20


def test_a_damaged_volume_is_made_again(project: Layout, opened: list[str]) -> None:
    ingest(params(), project)
    before = published(project)
    name = next(name for name in before if name.endswith("/c/1/0/0/0/0"))
    path = project.output("volumes") / name
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.write_bytes(content)
    opened.clear()
    ingest(params(), project)
    assert published(project) == before
    assert 1 <= len(opened) <= 8  # of the one shard
    assert set(opened) <= {f"p{n:02d}.nii.gz" for n in range(8, 16)}


def test_volumes_of_another_format_are_made_again(project: Layout, opened: list[str]) -> None:
    ingest(params(), project)
    before = published(project)
    group = zarr.open_group(project.output("volumes") / "volumes.zarr", mode="r+")
    group.attrs["format_version"] = 1
    opened.clear()
    ingest(params(), project)
    assert len(opened) == 20
    assert published(project) == before


def test_a_refusal_that_may_pass_is_tried_again(project: Layout, opened: list[str]) -> None:
    """The command is the same, and the machine is not."""
    for number in range(4, 20):
        (project.root / f"raw/p{number:02d}.nii.gz").unlink()
    tool, licence = project.root / "tool.py", project.root / "licence"
    tool.write_text(
        "import shutil, sys, pathlib\n"
        f"if not pathlib.Path({str(licence)!r}).exists():\n"
        "    sys.exit('no licence')\n"
        "shutil.copy(sys.argv[1], sys.argv[2])\n"
    )
    settings = params(deface=[sys.executable, str(tool), "{scan}", "{out}"])
    licence.touch()
    assert ingest(settings, project)["rejected"] == 0
    write(project.root / "raw/p50.nii.gz", 50)
    licence.unlink()
    assert ingest(settings, project)["rejected"] == 1
    with (project.output("volumes") / "rejections.tsv").open(newline="") as file:
        (row,) = csv.DictReader(file, delimiter="\t")
    assert (row["source"], row["code"]) == ("p50.nii.gz", "command-failed")
    assert row["reason"].endswith("ended with 1: no licence")
    licence.touch()
    opened.clear()
    metrics = ingest(settings, project)
    assert (metrics["volumes"], metrics["rejected"]) == (5, 0)
    assert set(opened) == {"p50.nii.gz", "out.nii.gz"}  # and what the command made of it


def test_a_disk_that_fails_in_between_costs_no_scan(
    project: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A file server that goes away is no fault of the scans, and no row of rejections."""
    read = image_file._Hashed.readinto
    calls: list[int] = []

    def failing(self: Any, buffer: Any) -> int:
        calls.append(len(calls))
        if len(calls) > 30:
            raise OSError(errno.ESTALE, "Stale file handle")
        return read(self, buffer)

    with monkeypatch.context() as patch:
        patch.setattr(image_file._Hashed, "readinto", failing)
        with pytest.raises(OSError, match=r"Stale file handle: .*p\d\d\.nii\.gz") as caught:
            ingest(params(), project)
    assert caught.value.errno == errno.ESTALE  # by which a flow knows to try again
    assert not project.output("volumes").exists()
    assert ingest(params(), project)["rejected"] == 0
    assert published(project) == afresh(project, tmp_path / "other", params())


def test_processes_make_the_same_bytes(project: Layout, tmp_path: Path) -> None:
    ingest(params(), project, each=processes(2))
    assert published(project) == afresh(project, tmp_path / "other", params())


def _ingest_with_processes(root: str) -> None:
    os.setpgid(0, 0)
    ingest(params(), Layout(Path(root)), each=processes(2))


def test_processes_end_with_the_one_that_is_killed_and_a_rerun_is_whole(
    project: Layout, tmp_path: Path
) -> None:
    for number in range(20, 120):
        write(project.root / f"raw/p{number:03d}.nii.gz", number)
    context = multiprocessing.get_context("spawn")
    parent = context.Process(target=_ingest_with_processes, args=(str(project.root),))
    parent.start()
    assert parent.pid is not None
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not list(project.work.glob("*/out/outcomes/*.json")):
        time.sleep(0.005)
    children = psutil.Process(parent.pid).children(recursive=True)
    assert len(children) >= 2
    os.kill(parent.pid, signal.SIGKILL)
    parent.join()
    gone, alive = psutil.wait_procs(children, timeout=10)
    assert alive == []
    assert gone
    assert not project.output("volumes").exists()
    done = len(list(project.work.glob("*/out/outcomes/*.json")))
    assert 0 < done < 15
    ingest(params(), project)
    verify(project.output("volumes"))
    assert published(project) == afresh(project, tmp_path / "other", params())
