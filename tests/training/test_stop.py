"""Signals that wait for a checkpoint."""

import os
import pty
import re
import signal
import subprocess
import sys
import threading
import time

import pytest
import yaml

from tests.conftest import REPO, tiny_values
from vqmri.layout import OUTPUT_OF, Layout
from vqmri.training.stop import held_back

HEEDED = [signal.SIGTERM, signal.SIGINT]


@pytest.mark.parametrize("number", HEEDED)
def test_a_signal_waits_for_the_end_of_the_block(number: int) -> None:
    told = []
    before = signal.signal(number, lambda *_: told.append("delivered"))
    try:
        with held_back() as asked:
            assert not asked()
            os.kill(os.getpid(), number)
            assert asked()
            assert told == []
        assert told == ["delivered"]
        os.kill(os.getpid(), number)
        assert told == ["delivered", "delivered"]  # the handler is the old one again
    finally:
        signal.signal(number, before)


def test_a_second_signal_does_not_wait() -> None:
    told: list[int] = []
    before = {n: signal.signal(n, lambda n, _: told.append(n)) for n in HEEDED}
    try:
        with held_back():
            os.kill(os.getpid(), signal.SIGTERM)
            os.kill(os.getpid(), signal.SIGINT)
            assert told == [signal.SIGINT]
        assert told == [signal.SIGINT]
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def test_what_is_ignored_stays_ignored_and_other_threads_hold_nothing_back() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with held_back() as asked:
            os.kill(os.getpid(), signal.SIGINT)
            assert not asked()
    finally:
        signal.signal(signal.SIGINT, before)

    def elsewhere() -> None:
        mine = signal.getsignal(signal.SIGTERM)
        with held_back() as asked:
            found.append((asked(), signal.getsignal(signal.SIGTERM) is mine))

    found: list[tuple[bool, bool]] = []
    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert found == [(False, True)]


@pytest.mark.parametrize(
    "stage", [pytest.param("train_vqvae", marks=pytest.mark.long), "train_prior"]
)
def test_a_training_that_is_asked_to_end_leaves_a_checkpoint_and_goes_on(
    stage: str, copy_of_finished: Layout, shell: dict[str, str]
) -> None:
    data = copy_of_finished
    values = tiny_values()
    values[stage] |= {"steps": 400, "batch_size": 4}
    (data.root / "params.yaml").write_text(yaml.safe_dump(values))
    shell = shell | {"PYTHONPATH": str(REPO)}
    command = [sys.executable, "-m", "vqmri", stage]
    terminal, end = pty.openpty()  # to see its steps at once
    child = subprocess.Popen(
        command, cwd=data.root, env=shell, stdout=subprocess.DEVNULL, stderr=end
    )
    os.close(end)
    said = ""
    while not re.search(r"\D[1-9]\d*/400\D", said):  # it has done some steps
        said += (more := read(terminal))
        assert more, said
    assert "step/s" in said
    asked_at = time.monotonic()
    child.terminate()
    while more := read(terminal):
        said += more
    assert child.wait(timeout=60) == 4, said
    os.close(terminal)
    assert time.monotonic() - asked_at < 30
    assert "The same command goes on from here" in said
    (work,) = data.work.glob(f"{OUTPUT_OF[stage]}-*")
    (checkpoint,) = (work / "state").rglob("step-*.safetensors")
    step = int(checkpoint.name.split("-")[1])
    assert 0 < step < 400
    done = subprocess.run(command, cwd=data.root, env=shell, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert f"{stage} goes on from step {step} of 400" in done.stderr
    assert "\x1b" not in done.stderr  # nothing is drawn into a log


def read(terminal: int) -> str:
    """What comes next; nothing when the other end is closed."""
    try:
        return os.read(terminal, 4096).decode(errors="replace")
    except OSError:
        return ""
