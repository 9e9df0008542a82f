"""SIGKILL in the middle of every stage: the output is the old one or absent, and a rerun is whole.

The children are forked from a server that has imported everything, so that what is killed is the
stage and not the start of Python.
"""

import multiprocessing
import os
import random
import shutil
import signal
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from importlib import import_module
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from tests.conftest import tiny_values
from tests.faults import Record, tell
from vqmri.layout import OUTPUT_OF, Layout
from vqmri.outputs import Manifest, verify
from vqmri.params import Params
from vqmri.stages import STAGES

MEMORY = {".lock", ".sqlite"}  # what stays in the work folder
DURATIONS: dict[str, float] = {}  # seconds of an unbroken run, measured when first needed
TRAININGS = ["train_vqvae", "train_prior"]
STEPS = 24
SAME = "nothing half written is seen; the rerun ends in the same bytes"
server = multiprocessing.get_context("forkserver")
server.set_forkserver_preload(["tests.stages.child"])


def start(stage: str, root: Path) -> BaseProcess:
    from tests.stages.child import run_stage

    process = server.Process(target=run_stage, args=(stage, str(root), tiny_values()))
    process.start()
    return process


def finish(stage: str, root: Path) -> float:
    """Run a stage to its end; seconds from its first write."""
    process = start(stage, root)
    begin = first_write(Layout(root), process)
    process.join(120)
    assert process.exitcode == 0
    return time.monotonic() - begin


def first_write(data: Layout, process: BaseProcess) -> float:
    while process.is_alive() and not any(data.work.glob("*-*")):
        time.sleep(0.001)
    return time.monotonic()


def digest(data: Layout, stage: str) -> bytes:
    return (data.output(OUTPUT_OF[stage]) / "MANIFEST.json").read_bytes()


def outdate(data: Layout, stage: str) -> None:
    """Let a published output be that of other params, so that the stage has something to do."""
    folder = data.output(OUTPUT_OF[stage])
    replace(Manifest.read(folder), fingerprint="0" * 64).write(folder)


def kill_and_resume(stage: str, finished: Layout, folder: Path, share: float, old: bool) -> bool:
    """Kill the stage after a share of its time, look, run it again; False if it was too quick."""
    root = folder / "project"
    shutil.copytree(finished.root, root)
    data = Layout(root)
    expected = digest(data, stage)
    shutil.rmtree(data.work)
    if old:
        outdate(data, stage)
    else:
        shutil.rmtree(data.output(OUTPUT_OF[stage]))
    if stage not in DURATIONS:
        DURATIONS[stage] = measure(stage, finished, folder)
    process = start(stage, root)
    begin = first_write(data, process)
    time.sleep(max(0.0, share * DURATIONS[stage] - (time.monotonic() - begin)))
    with suppress(ProcessLookupError):  # it ended by itself
        process.kill()
    process.join(60)
    killed = process.exitcode == -signal.SIGKILL
    output = data.output(OUTPUT_OF[stage])
    if output.exists():  # whole, be it the old one or, in the last moment, the new one
        verify(output)
    else:
        assert not old or (data.work / f"{output.name}.old").exists()
    finish(stage, root)
    verify(output)
    assert digest(data, stage) == expected
    assert all(path.suffix in MEMORY for path in data.work.iterdir())
    shutil.rmtree(root)
    return killed


def measure(stage: str, finished: Layout, folder: Path) -> float:
    """How long an unbroken run takes here."""
    root = folder / "measured"
    shutil.copytree(finished.root, root)
    outdate(Layout(root), stage)
    seconds = finish(stage, root)
    shutil.rmtree(root)
    return seconds


SHORT = ("ingest", "train_prior", "sample", "evaluate")


@pytest.mark.faults
@pytest.mark.parametrize(
    "stage", [s if s in SHORT else pytest.param(s, marks=pytest.mark.long) for s in STAGES]
)
def test_killed_once_with_and_once_without_an_old_output(
    stage: str, finished: Layout, tmp_path: Path, record_property: Record
) -> None:
    for old in (True, False):
        shares = (0.5, 0.2, 0.1, 0.05, 0.02)  # earlier and earlier, until it came in time
        assert any(kill_and_resume(stage, finished, tmp_path, share, old) for share in shares)
    tell(record_property, f"SIGKILL in {stage}", 2, 2, SAME)


@pytest.mark.faults
@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("stage", STAGES)
def test_killed_at_fifteen_moments(
    stage: str, finished: Layout, tmp_path: Path, record_property: Record
) -> None:
    kills, moments = 0, random.Random(stage)
    for attempt in range(60):
        share = moments.uniform(0.02, 0.95) / (1 + attempt // 15)
        kills += kill_and_resume(stage, finished, tmp_path, share, old=attempt % 2 == 0)
        if kills == 15:
            break
    print(f"{stage}: killed {kills} times, an unbroken run takes {DURATIONS[stage]:.1f} s")
    assert kills == 15
    tell(record_property, f"SIGKILL in {stage}", kills, kills, SAME)


def outputs_when_killed(
    stage: str, steps: Sequence[int], finished: Layout, folder: Path
) -> list[bytes]:
    """Digests of what a training publishes: unbroken, and killed at each of the steps and rerun."""
    from tests.stages.child import run_stage, run_until

    values = tiny_values()
    values[stage] |= {"average_decay": 0.9, "micro_batch": 2, "batch_size": 4, "steps": STEPS}
    if stage == "train_vqvae":
        values[stage]["patch"] = [16, 16, 16]
        values[stage]["augment"] = {
            "flips": [0], "rotation": 10.0, "scaling": 0.1, "translation": 10.0, "contrast": 0.2,
        }  # fmt: skip
    found = []
    for step in (None, *steps):
        root = folder / f"{step}"
        shutil.copytree(finished.root, root)
        shutil.rmtree(Layout(root).output(OUTPUT_OF[stage]))
        if step is not None:
            dying = server.Process(target=run_until, args=(stage, str(root), values, step))
            dying.start()
            dying.join(120)
            assert dying.exitcode == -signal.SIGKILL
            assert not Layout(root).output(OUTPUT_OF[stage]).exists()
        whole = server.Process(target=run_stage, args=(stage, str(root), values))
        whole.start()
        whole.join(120)
        assert whole.exitcode == 0
        found.append(digest(Layout(root), stage))
        shutil.rmtree(root)
    return found


@pytest.mark.faults
@pytest.mark.parametrize("stage", TRAININGS)
def test_a_training_killed_at_a_step_ends_in_the_same_bytes(
    stage: str, finished: Layout, tmp_path: Path, record_property: Record
) -> None:
    step = random.Random(stage).randrange(STEPS)
    unbroken, killed = outputs_when_killed(stage, [step], finished, tmp_path)
    assert killed == unbroken
    tell(record_property, f"SIGKILL at a step of {stage}", 1, 1, SAME)


@pytest.mark.faults
@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("stage", TRAININGS)
def test_a_training_killed_at_twenty_steps(
    stage: str, finished: Layout, tmp_path: Path, record_property: Record
) -> None:
    steps = random.Random(stage).sample(range(STEPS), 20)
    unbroken, *killed = outputs_when_killed(stage, steps, finished, tmp_path)
    assert killed == [unbroken] * 20
    tell(record_property, f"SIGKILL at a step of {stage}", 20, 20, SAME)


@pytest.mark.parametrize("stage", STAGES)
def test_a_second_run_beside_the_first_is_refused(stage: str, copy_of_finished: Layout) -> None:
    from vqmri.errors import LockedError
    from vqmri.outputs import hold

    data = copy_of_finished
    module, name = STAGES[stage].split(":")
    with (
        hold(data.work / f"{OUTPUT_OF[stage]}.lock"),
        pytest.raises(LockedError, match=str(os.getpid())),
    ):
        getattr(import_module(module), name)(Params.model_validate(tiny_values()), data)
