"""A disk that has no room: said before, and survived in the middle."""

import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from tests.conftest import REPO, tiny_values
from tests.faults import Record, tell
from vqmri.errors import StorageError
from vqmri.layout import OUTPUT_OF, Layout
from vqmri.outputs import Identity, need_space, publishing, verify

SHORT = ("encode",)
STAGES = [
    pytest.param(stage, marks=() if stage in SHORT else (pytest.mark.long,))
    for stage in ("ingest", "train_vqvae", "encode", "train_prior", "sample", "evaluate")
]
KIB = 1024


def test_what_does_not_fit_is_refused_before_it_is_begun(tmp_path: Path) -> None:
    identity = Identity("encode", 1, {}, {})
    free = shutil.disk_usage(tmp_path).free
    with publishing(tmp_path / "codes", tmp_path / ".work", identity) as work:
        need_space(work, free // 2)
        with pytest.raises(StorageError, match=r"at least .* GB will be written.*Nothing was"):
            need_space(work, 2 * free)
        with pytest.raises(StorageError, match="mount one at data/"):  # DVC follows no link out
            need_space(work, 2 * free)
        (work.out / "begun").write_bytes(bytes(10_000_000))
        need_space(work, shutil.disk_usage(tmp_path).free + 5_000_000)  # it has 10 MB already


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """An empty file system in memory, whose size `resize` sets."""
    place = tmp_path / "disk"
    place.mkdir()
    mounted = ["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", str(place)]
    if subprocess.run(mounted, capture_output=True, check=False).returncode:
        pytest.skip("this user may not mount a file system")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


def resize(place: Path, size: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", str(place)], check=True)


def used(place: Path) -> int:
    return shutil.disk_usage(place).used


def vqmri(root: Path, stage: str, shell: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["vqmri", stage], cwd=root, env=shell | {"PYTHONPATH": str(REPO)},
        capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.faults
@pytest.mark.parametrize("stage", STAGES)
def test_a_disk_that_fills_up_loses_nothing_and_the_stage_goes_on(
    stage: str,
    finished: Layout,
    small_disk: Path,
    tmp_path: Path,
    shell: dict[str, str],
    record_property: Record,
) -> None:
    """`data/` is a link to a disk with room for some of the new output, beside the old one."""
    root = tmp_path / "project"
    shutil.copytree(finished.data, small_disk / "data")
    root.mkdir()
    (root / "data").symlink_to(small_disk / "data")
    (root / "params.yaml").write_text(yaml.safe_dump(tiny_values()))
    data = Layout(root)
    output = data.output(OUTPUT_OF[stage])
    expected = (output / "MANIFEST.json").read_bytes()
    shutil.rmtree(output)
    ends = []
    for room in (0, 8 * KIB, 40 * KIB, 120 * KIB, 400 * KIB):
        resize(small_disk, -(-(used(small_disk) + room) // 4096) * 4096)
        done = vqmri(root, stage, shell)
        ends.append(done.returncode)
        if done.returncode == 0:
            break
        assert done.returncode == 5, done.stderr
        assert "Nothing was begun" in done.stderr or "Nothing that was published" in done.stderr
        assert not output.exists()
        for name in OUTPUT_OF.values():
            if data.output(name) != output:
                verify(data.output(name))
    assert ends[0] == 5
    resize(small_disk, 64 * 1024 * KIB)
    done = vqmri(root, stage, shell)
    assert done.returncode == 0, done.stderr
    verify(output)
    assert (output / "MANIFEST.json").read_bytes() == expected
    full = ends.count(5)
    tell(record_property, f"disk full in {stage}", full, full, "exit 5; goes on when there is room")
