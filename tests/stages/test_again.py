"""What must be noticed by the next ingest, and what must not reach an output."""

import os
import signal
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.stages.test_reconstruct import raw_phantom, write
from tests.stages.test_sources import NIFTI, everything, params, records, scans
from vqmri.errors import InputError, InterruptedRunError
from vqmri.layout import Layout
from vqmri.outputs.digests import FileDigests
from vqmri.scans.store import VolumeStore
from vqmri.stages.ingest import ingest
from vqmri.stages.workers import processes

TOOL = (
    "import sys, nibabel as nib\n"
    "image = nib.load(sys.argv[1])\n"
    "data = image.get_fdata(); data[{part}] = 0\n"
    "nib.save(nib.Nifti1Image(data, image.affine), sys.argv[2])\n"
)


def test_another_program_under_the_same_name_is_noticed(tmp_path: Path) -> None:
    data = scans(tmp_path, [f"{n}.nii.gz" for n in range(4)])
    tool = tmp_path / "tool.py"
    settings = params(source=NIFTI, deface=[sys.executable, "./tool.py", "{scan}", "{out}"])
    tool.write_text(TOOL.format(part=":, :2"))
    ingest(settings, data)
    before = everything(data.output("volumes"))
    assert ingest(settings, data)["volumes"] == 4
    assert everything(data.output("volumes")) == before
    tool.write_text(TOOL.format(part=":, 9:"))
    ingest(settings, data)
    assert everything(data.output("volumes")) != before


def test_a_run_of_which_nothing_came_is_not_remembered(tmp_path: Path) -> None:
    """The command is the same, and does its work when it has what it lacked."""
    data = scans(tmp_path, [f"{n}.nii.gz" for n in range(4)])
    licence = f"import pathlib\nassert pathlib.Path({str(tmp_path / 'licence')!r}).exists()\n"
    (tmp_path / "tool.py").write_text(licence + TOOL.format(part=":, :2"))
    settings = params(source=NIFTI, deface=[sys.executable, "./tool.py", "{scan}", "{out}"])
    with pytest.raises(InputError, match=r"command-failed \(4\)"):
        ingest(settings, data)
    (tmp_path / "licence").touch()
    assert ingest(settings, data)["volumes"] == 4


def test_a_link_that_becomes_a_file_is_read_and_the_other_way_round(tmp_path: Path) -> None:
    data = scans(tmp_path, [f"{n}.nii.gz" for n in range(4)])
    elsewhere = write(tmp_path / "elsewhere.nii.gz", *raw_phantom(7))
    link = tmp_path / "raw/link.nii.gz"
    link.symlink_to(elsewhere)
    assert ingest(params(source=NIFTI), data)["rejected"] == 1
    link.unlink()
    link.write_bytes(elsewhere.read_bytes())
    assert ingest(params(source=NIFTI), data)["rejected"] == 0
    link.unlink()
    link.symlink_to(elsewhere)
    assert ingest(params(source=NIFTI), data)["rejected"] == 1


def test_a_refusal_tells_no_path(tmp_path: Path) -> None:
    """Equal data in another folder give equal bytes, and a key hides what a path tells."""
    tables = []
    for place in ("one", "two"):
        data = scans(tmp_path / place, [f"{n}.nii.gz" for n in range(4)])
        raw = tmp_path / place / "raw"
        (raw / "Smith1.nii.gz").symlink_to("Smith.nii.gz")
        (raw / "Smith2.nii.gz").symlink_to(tmp_path / "elsewhere.nii.gz")
        (raw / "Smith3.nii.gz").write_bytes(b"no image")
        (tmp_path / place / "key").write_text("secret")
        assert ingest(params(source=NIFTI), data)["rejected"] == 3
        tables.append(everything(data.output("volumes")))
        named = {**NIFTI, "table": "Smith.csv", "file_column": "file", "subject_column": "who"}
        rows = "".join(f"{path.name},{path.name}\n" for path in raw.iterdir())
        (raw / "Smith.csv").write_text(f"file,who\n{rows}")
        ingest(params(source=named, subject_key="key"), data)
        assert b"Smith" not in everything(data.output("volumes"))
    assert tables[0] == tables[1]
    assert str(tmp_path).encode() not in tables[0]


def test_the_list_of_names_comes_back(tmp_path: Path) -> None:
    data = scans(tmp_path, [f"{n}.nii.gz" for n in range(4)])
    (tmp_path / "key").write_bytes(b"\xff\xfe not text")
    settings = params(source=NIFTI, subject_key="key")
    ingest(settings, data)
    (data.work / "names.tsv").unlink()
    ingest(settings, data)
    assert len((data.work / "names.tsv").read_text().splitlines()) == 5


def test_what_is_hidden_is_no_scan(tmp_path: Path) -> None:
    names = ["a/T1.nii.gz", "b/T1.nii.gz", ".git/annex/c.nii.gz", "a/._T1.nii.gz", "c/.d/x.nii.gz"]
    data = scans(tmp_path, names)
    assert ingest(params(), data)["volumes"] == 2
    assert [record.subject for record in records(data)] == ["aT1", "bT1"]


@pytest.mark.parametrize("name", ["labelsTr/1.nii.gz", "1_mask.nii.gz", "seg/x.nii", "1_dseg.nii"])
def test_what_seems_to_be_labels_must_be_named(tmp_path: Path, name: str) -> None:
    data = scans(tmp_path, ["imagesTr/1.nii.gz", "imagesTr/2.nii.gz", name])
    with pytest.raises(InputError, match=r"(?s)seems to be label maps .*images: .*\.nii"):
        ingest(params(), data)


def pairs(root: Path, scans: list[str], brains: list[str], **source: str) -> dict[str, Any]:
    """Scans, masks of which each has another number of voxels; scan to voxels of its mask."""
    for number, name in enumerate(scans):
        write(root / "raw" / name, *raw_phantom(number))
    for number, name in enumerate(brains):
        voxels, affine = raw_phantom(0)
        mask = np.zeros(voxels.shape, np.uint8)
        mask[4:8, 8 : 12 + number, 6:10] = 1
        write(root / "raw" / name, mask, affine)
    data = Layout(root)
    settings = params(source={"kind": "nifti", **source})
    ingest(settings, data)
    return {r.source: r.steps[0]["voxels"] for r in VolumeStore(data.output("volumes")).records}


def test_nobody_gets_anothers_mask(tmp_path: Path) -> None:
    images = [f"img/subj_{who}.nii.gz" for who in ("Anna", "Ben", "Cem", "Dana")]
    masks = [f"msk/subj_{who}.nii.gz" for who in ("Ben", "Cem", "Dana")]
    found = pairs(tmp_path, images, masks, images="img/*", masks="msk/*")
    assert found == {
        "img/subj_Ben.nii.gz": 64, "img/subj_Cem.nii.gz": 80, "img/subj_Dana.nii.gz": 96,
    }  # fmt: skip


def test_a_mask_may_have_a_suffix_more(tmp_path: Path) -> None:
    people = ("subj_Anna", "subj_Ben", "subj")
    images = [f"{who}.nii.gz" for who in people]
    masks = [f"msk/{who}_brain.nii.gz" for who in people]
    found = pairs(tmp_path, images, masks, images="*.nii.gz", masks="msk/*")
    assert found == {"subj_Anna.nii.gz": 64, "subj_Ben.nii.gz": 80, "subj.nii.gz": 96}


def _end(_: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_process_that_is_ended_is_said_to_be(tmp_path: Path) -> None:
    with pytest.raises(InterruptedRunError, match="--workers") as caught:
        list(processes(2)(_end, [1, 2, 3]))
    assert caught.value.exit_code == 4


def test_nothing_of_a_scan_is_left_beside_the_volumes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = scans(tmp_path, [f"{n}.nii.gz" for n in range(4)])
    seen = tmp_path / "seen"
    tool = tmp_path / "tool.py"
    noted = f"open({str(seen)!r}, 'a').write(sys.argv[1] + '\\n')\n"
    tool.write_text(TOOL.format(part=":, :2") + noted)
    ingest(params(source=NIFTI, deface=[sys.executable, str(tool), "{scan}", "{out}"]), data)
    places = [Path(line) for line in seen.read_text().splitlines()]
    assert len(places) == 4
    assert all(place.is_relative_to(data.work.resolve()) for place in places)
    assert not any(place.parent.exists() for place in places)


BREAKS: dict[str, Callable[[Path], object]] = {
    "damaged": lambda path: path.write_bytes(
        path.read_bytes()[:4096] + b"\xff" * 8192 + path.read_bytes()[12288:]
    ),
    "of another": lambda path: sqlite3.connect(path).execute("drop table files").close(),
}


@pytest.mark.parametrize("how", BREAKS)
def test_a_memory_that_cannot_be_used_is_done_without(tmp_path: Path, how: str) -> None:
    data = scans(tmp_path, [f"{n}.nii.gz" for n in range(4)])
    ingest(params(source=NIFTI), data)
    before = everything(data.output("volumes"))
    memory = data.work / "digests.sqlite"
    with FileDigests(memory) as digests:
        for number in range(400):
            digests._ask("replace into files values (?, 1, 1, 1, 1, ?)", f"{number}" * 20, "x" * 64)
    BREAKS[how](memory)
    ingest(params(source=NIFTI), data)
    assert everything(data.output("volumes")) == before


def test_a_memory_in_anothers_hands_is_done_without(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = scans(tmp_path, [f"{n}.nii.gz" for n in range(4)])
    ingest(params(source=NIFTI), data)
    connect = sqlite3.connect

    def hasty(path: Any, timeout: float = 0, **options: Any) -> sqlite3.Connection:
        return connect(path, timeout=0, **options)

    monkeypatch.setattr(sqlite3, "connect", hasty)
    other = connect(data.work / "digests.sqlite", isolation_level=None)
    other.execute("begin exclusive")
    try:
        assert ingest(params(source=NIFTI, held_out=0.5), data)["held_out_volumes"] == 2
    finally:
        other.close()
    assert (data.work / "digests.sqlite").is_file()
