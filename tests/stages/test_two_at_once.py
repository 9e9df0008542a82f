"""Eight starts of one stage: one works, and seven are told who does."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tests.conftest import REPO, tiny_values
from tests.faults import Record, tell
from vqmri.layout import Layout
from vqmri.outputs import verify


@pytest.mark.faults
def test_one_of_eight_works_and_nothing_stale_blocks_after_a_kill(
    copy_of_finished: Layout, shell: dict[str, str], record_property: Record
) -> None:
    data = copy_of_finished
    values = tiny_values()
    values["train_prior"] |= {"steps": 100_000}
    (data.root / "params.yaml").write_text(yaml.safe_dump(values))

    def start() -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "vqmri", "train_prior"], cwd=data.root, text=True,
            env=shell | {"PYTHONPATH": str(REPO)}, stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip

    begin = time.monotonic()
    started = [start() for _ in range(8)]
    while sum(one.poll() is None for one in started) > 1:
        assert time.monotonic() - begin < 120
        time.sleep(0.05)
    seconds = time.monotonic() - begin
    (holder,) = [one for one in started if one.poll() is None]
    told = [one.communicate()[1] for one in started if one is not holder]
    try:
        assert [one.returncode for one in started if one is not holder] == [6] * 7
        assert all(f"prior is being written by process {holder.pid} (" in text for text in told)
        print(f"seven of eight had left after {seconds:.1f} s")
        os.kill(holder.pid, signal.SIGKILL)
        holder.communicate(timeout=30)
    finally:
        for one in started:
            if one.poll() is None:
                one.kill()
    values["train_prior"] |= {"steps": 12}
    (data.root / "params.yaml").write_text(yaml.safe_dump(values))
    again = start()
    _, said = again.communicate(timeout=120)
    assert again.returncode == 0, said
    verify(data.output("prior"))
    tell(record_property, "8 starts of one stage at once", 8, 8, "one works, seven leave with 6")


def test_the_second_one_is_told_before_anything_heavy_is_imported(
    copy_of_finished: Layout, shell: dict[str, str]
) -> None:
    data = copy_of_finished
    (data.root / "params.yaml").write_text(yaml.safe_dump(tiny_values()))
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from vqmri.errors import LockedError\n"
        "from vqmri.outputs import hold\n"
        "from vqmri.stages.run import run\n"
        "with hold(Path('data/.work/codes.run.lock')):\n"
        "    try:\n"
        "        run('encode', Path.cwd())\n"
        "    except LockedError as error:\n"
        "        print(error)\n"
        "print([name for name in ('torch', 'monai', 'mlflow', 'zarr') if name in sys.modules])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=data.root, text=True, capture_output=True, check=True,
        env=shell | {"PYTHONPATH": str(REPO)},
    )  # fmt: skip
    assert "codes is being written by process" in done.stdout
    assert done.stdout.endswith("[]\n")
    assert Path(data.output("codes") / "MANIFEST.json").is_file()
