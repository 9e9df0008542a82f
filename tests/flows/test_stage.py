"""What runs shards, and when they are tried again."""

import errno
from pathlib import Path
from typing import Any

import pytest
from prefect.task_runners import ThreadPoolTaskRunner
from prefect_dask.task_runners import DaskTaskRunner

from flows import stage
from vqmri.errors import InputError, IntegrityError


class Ended:
    """A task's state, as Prefect gives it to a retry condition."""

    def __init__(self, fault: Exception) -> None:
        self._fault = fault

    def result(self, raise_on_failure: bool) -> Exception:
        assert not raise_on_failure
        return self._fault


@pytest.mark.parametrize(
    ("fault", "again"),
    [
        (OSError(errno.ESTALE, "stale file handle"), True),
        (OSError(errno.EIO, "input/output error"), True),
        (TimeoutError(errno.ETIMEDOUT, "timed out"), True),
        (OSError(errno.ENOSPC, "no space left"), False),
        (PermissionError(errno.EACCES, "denied"), False),
        (FileNotFoundError(errno.ENOENT, "gone"), False),
        (InputError("no scans"), False),
        (IntegrityError("changed"), False),
        (ValueError("a bug"), False),
    ],
)
def test_a_shard_is_tried_again_only_where_that_can_help(fault: Exception, again: bool) -> None:
    assert stage._may_pass(None, None, Ended(fault)) is again
    assert stage.shard.retry_condition_fn is stage._may_pass


def test_a_deployment_names_what_runs_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    def runner(asked: str | None) -> Any:
        if asked is None:
            monkeypatch.delenv(stage.RUNNER, raising=False)
        else:
            monkeypatch.setenv(stage.RUNNER, asked)
        return stage.shards(2)

    threads, local, cluster = runner(None), runner("dask:3"), runner("tcp://10.0.0.7:8786")
    assert isinstance(threads, ThreadPoolTaskRunner)
    assert isinstance(local, DaskTaskRunner)
    assert local.cluster_kwargs["n_workers"] == 3
    assert local.cluster_kwargs["host"] == "127.0.0.1"
    assert isinstance(cluster, DaskTaskRunner)
    assert cluster.address == "tcp://10.0.0.7:8786"


def test_new_scans_are_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from flows import watch

    told: list[Any] = []
    monkeypatch.setattr(watch, "emit_event", lambda *a, **k: told.append((a, k)))
    monkeypatch.setattr(watch, "get_run_logger", _Quiet)
    monkeypatch.chdir(tmp_path)
    preset = Path(__file__).parents[2] / "presets" / "hippocampus.yaml"
    (tmp_path / "params.yaml").write_text(preset.read_text())
    raw = tmp_path / "data" / "raw" / "hippocampus" / "imagesTr"
    raw.mkdir(parents=True)
    (raw / "a.nii.gz").write_bytes(b"1")
    look = watch.watch.fn
    assert [look(), look()] == [True, False]
    (raw / "b.nii.gz").write_bytes(b"1")
    assert [look(), look()] == [True, False]
    (raw / "b.nii.gz").write_bytes(b"22")
    assert look()
    (raw / "b.nii.gz").unlink()
    assert look()
    assert len(told) == 4
    assert told[0][0] == ("vqmri.scans.arrived",)
    assert told[1][1]["payload"] == {"files": 2}


class _Quiet:
    def info(self, *_: Any) -> None:
        pass
