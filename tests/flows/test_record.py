"""What DVC refuses a flow: it is at work for another command, or cannot do what is asked."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from dvc.lock import LockBase
from dvc.repo import Repo

from flows.record import is_unchanged, record
from tests.conftest import REPO
from vqmri.errors import LockedError, VqmriError
from vqmri.params import Params


@pytest.fixture
def params(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Params:
    """Of a DVC project whose stage `encode` has made its output, which DVC does not know."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("dvc.lock.DEFAULT_TIMEOUT", 0.1)
    monkeypatch.setattr("flows.record._PAUSE_S", 0.1)
    Repo.init(no_scm=True)
    (tmp_path / "dvc.yaml").write_text("stages:\n  encode:\n    cmd: echo\n    outs: [codes]\n")
    (tmp_path / "codes").write_text("codes")
    (tmp_path / "params.yaml").write_bytes((REPO / "vqmri/presets/phantom.yaml").read_bytes())
    return Params.load(tmp_path / "params.yaml")


@pytest.fixture
def other(params: Params) -> Iterator[LockBase]:
    """DVC's lock, in the hands of another command."""
    with Repo() as repo:
        lock: LockBase = repo.lock
    lock.lock()
    yield lock
    if lock.is_locked:
        lock.unlock()


def test_a_stage_is_recorded_when_another_command_of_dvc_has_ended(
    params: Params, other: LockBase, caplog: pytest.LogCaptureFixture
) -> None:
    timer = threading.Timer(1, other.unlock)
    timer.start()
    record("encode", params)
    timer.join()
    assert caplog.text.count("encode is recorded after it") == 1
    assert is_unchanged("encode")


def test_a_pipeline_goes_on_when_another_command_of_dvc_has_ended(
    params: Params, other: LockBase, caplog: pytest.LogCaptureFixture
) -> None:
    timer = threading.Timer(1, other.unlock)
    timer.start()
    assert not is_unchanged("encode")
    timer.join()
    assert caplog.text.count("whether encode must run is asked after it") == 1


def test_one_that_does_not_end_is_named_with_the_way_out(
    params: Params, other: LockBase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.record.PATIENCE_S", 0.3)
    with pytest.raises(LockedError, match=r"another DVC command.*`dvc commit -f encode`") as found:
        record("encode", params)
    assert found.value.exit_code == 6
    with pytest.raises(LockedError, match=r"whether encode must run.*run this command again"):
        is_unchanged("encode")


@pytest.mark.filterwarnings("ignore:_NoneStep:DeprecationWarning")  # of DVC's own library
def test_what_else_dvc_refuses_is_told(params: Params) -> None:
    Path("codes").unlink()
    with pytest.raises(VqmriError, match=r"cannot record encode.*codes.*`dvc commit -f encode`"):
        record("encode", params)
    with pytest.raises(VqmriError, match=r"whether study must run.*study.*run this command again"):
        is_unchanged("study")
