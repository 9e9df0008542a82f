"""SIGTERM in a stage that trains nothing: it ends soon, with 4, and a rerun is whole."""

import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from tests.conftest import REPO, tiny_values
from tests.faults import Record, tell
from tests.stages.test_kill import digest, outdate
from vqmri.layout import OUTPUT_OF, Layout
from vqmri.outputs import verify
from vqmri.stages import STAGES

OTHERS = [stage for stage in STAGES if stage not in ("train_vqvae", "train_prior")]
LIMIT = 30.0  # seconds from the signal to the end


def start(stage: str, data: Layout, shell: dict[str, str]) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "vqmri", stage], cwd=data.root, text=True,
        env=shell | {"PYTHONPATH": str(REPO)}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
    )  # fmt: skip


def ended_by_sigterm(
    stage: str, finished: Layout, folder: Path, shell: dict[str, str], delay: float
) -> bool:
    """Ask it to end so long after its first write; False when it was done before."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(finished.root, folder)
    data = Layout(folder)
    (data.root / "params.yaml").write_text(yaml.safe_dump(tiny_values()))
    expected = digest(data, stage)
    shutil.rmtree(data.work)
    outdate(data, stage)
    running = start(stage, data, shell)
    while running.poll() is None and not any(data.work.glob(f"{OUTPUT_OF[stage]}-*")):
        time.sleep(0.005)
    time.sleep(delay)
    running.send_signal(signal.SIGTERM)
    begin = time.monotonic()
    _, said = running.communicate(timeout=LIMIT)
    print(f"{stage}: {running.returncode} {time.monotonic() - begin:.1f} s after SIGTERM")
    assert running.returncode in (0, 4), said
    assert (running.returncode == 4) == ("The same command goes on from here" in said), said
    verify(data.output(OUTPUT_OF[stage]))
    again = start(stage, data, shell)
    _, said = again.communicate(timeout=120)
    assert again.returncode == 0, said
    again = start(stage, data, shell)
    _, said = again.communicate(timeout=120)
    assert again.returncode == 0, said
    assert digest(data, stage) == expected
    return running.returncode == 4


@pytest.mark.faults
@pytest.mark.parametrize(
    "stage", [stage if stage == "sample" else pytest.param(stage, marks=pytest.mark.long)
              for stage in OTHERS]
)  # fmt: skip
def test_it_ends_soon_with_4_and_the_same_command_goes_on(
    stage: str, finished: Layout, tmp_path: Path, shell: dict[str, str], record_property: Record
) -> None:
    moments = random.Random(stage)
    delays = [moments.uniform(0, 0.5), 0.05, 0.0, 0.0, 0.0]  # until one came in time
    assert any(
        ended_by_sigterm(stage, finished, tmp_path / "project", shell, delay) for delay in delays
    )
    tell(
        record_property,
        f"SIGTERM in {stage}",
        1,
        1,
        "exit 4 in time; the rerun ends in the same bytes",
    )
