import sys
from pathlib import Path

import numpy as np
import psutil
import pytest

from vqmri.scans import commands, image_file
from vqmri.scans.check import PASSING, Refused
from vqmri.scans.commands import deface, mask_brain
from vqmri.scans.volume import Volume

LOAD = "import sys, nibabel as nib, numpy as np\nimage = nib.load(sys.argv[1])\n"
SAVE = "nib.save(nib.Nifti1Image(data.astype(np.float32), affine), sys.argv[2])\n"


def scan(channels: int = 1) -> Volume:
    data = np.random.default_rng(0).random((channels, 6, 7, 8)).astype(np.float32) + 1
    affine = np.diag([-1.0, 2, 3, 1])
    affine[:3, 3] = [5, -6, 7]
    return Volume(data, affine)


def tool(folder: Path, code: str) -> list[str]:
    """A command that does what the code says."""
    path = folder / "tool.py"
    path.write_text(code)
    return [sys.executable, str(path), "{scan}", "{out}"]


def code_of(command: list[str]) -> tuple[str, str]:
    with pytest.raises(Refused) as caught:
        deface(scan(), command, None)
    return caught.value.code, caught.value.reason


def test_each_channel_is_defaced(tmp_path: Path) -> None:
    code = LOAD + "data, affine = image.get_fdata(), image.affine\ndata[:, -2:] = 0\n" + SAVE
    before = scan(2)
    after, steps = deface(before, tool(tmp_path, code), None)
    assert np.all(after.data[:, :, -2:] == 0)
    assert np.array_equal(after.data[:, :, :-2], before.data[:, :, :-2])
    assert after.affine is before.affine
    assert steps == [{"step": "deface", "program": Path(sys.executable).name}]


def test_a_mask_is_what_is_above_0(tmp_path: Path) -> None:
    code = LOAD + "data, affine = 7 * (image.get_fdata() > 1.5), image.affine\n" + SAVE
    before = scan()
    after, steps = mask_brain(before, tool(tmp_path, code), None)
    assert after.mask is not None
    assert np.array_equal(after.mask, before.data[0] > 1.5)
    assert np.array_equal(after.data, before.data)
    assert steps[0]["voxels"] == after.mask.sum()


def test_a_mask_that_compresses_as_a_bomb_does_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_file, "_UNSUSPECTED_BYTES", 0)
    monkeypatch.setattr(image_file, "_MAX_COMPRESSION", 1)
    code = LOAD + "data, affine = 0 * image.get_fdata(), image.affine\ndata[0] = 1\n" + SAVE
    after, _ = mask_brain(scan(), tool(tmp_path, code), None)
    assert after.mask is not None
    assert after.mask.sum() == 7 * 8


def test_the_command_sees_no_name_and_leaves_nothing(tmp_path: Path) -> None:
    code = (
        LOAD
        + "import os\n"
        + f"open({str(tmp_path / 'seen')!r}, 'w').write(os.getcwd() + '|' + sys.argv[1] + '|'"
        + " + str(image.header['descrip'].item()) + '|' + sys.stdin.read())\n"
        + "data, affine = image.get_fdata(), image.affine\n"
        + SAVE
    )
    deface(scan(), tool(tmp_path, code), tmp_path)
    folder, source, description, given = (tmp_path / "seen").read_text().split("|")
    assert Path(source).parent == Path(folder)
    assert Path(source).name == "scan.nii.gz"
    assert (description, given) == ("b''", "")
    assert not Path(folder).exists()


def test_what_goes_wrong_is_a_refusal_that_may_pass(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "command-failed" in PASSING
    faults = {
        "print('no  licence'); raise SystemExit(3)": "ended with 3: no licence",
        "pass": "wrote no {out}",
        "import sys; open(sys.argv[2], 'w').write('x')": "wrote as {out} is unreadable",
        LOAD + "data, affine = image.get_fdata()[1:], image.affine\n" + SAVE: "another grid",
        LOAD + "data, affine = image.get_fdata(), np.eye(4)\n" + SAVE: "another grid",
        LOAD + "data, affine = 0 * image.get_fdata(), image.affine\n" + SAVE: "is constant",
    }
    for code, reason in faults.items():
        found = code_of(tool(tmp_path, code))
        assert found[0] == "command-failed"
        assert reason in found[1]
    said = LOAD + "raise SystemExit(sys.argv[1] + ' in ' + sys.argv[2])"
    assert code_of(tool(tmp_path, said))[1].endswith("ended with 1: scan.nii.gz in out.nii.gz")
    missing = code_of(["/opt/no-such-program", "{scan}", "{out}"])[1]
    assert missing == "no-such-program ended with FileNotFoundError: No such file or directory"
    monkeypatch.setattr(commands, "TIMEOUT_S", 0.2)
    slow = code_of(tool(tmp_path, "import time; time.sleep(60)"))
    assert "no end after 0.2 s" in slow[1]


def test_what_a_command_began_is_ended_with_it(tmp_path: Path) -> None:
    code = (
        LOAD
        + "import subprocess\n"
        + "child = subprocess.Popen(['sleep', '600'])\n"
        + f"open({str(tmp_path / 'child')!r}, 'w').write(str(child.pid))\n"
        + "data, affine = image.get_fdata(), image.affine\n"
        + SAVE
    )
    deface(scan(), tool(tmp_path, code), None)
    pid = int((tmp_path / "child").read_text())
    psutil.wait_procs([psutil.Process(pid)] if psutil.pid_exists(pid) else [], timeout=10)
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
