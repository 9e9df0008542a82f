"""What runs shards, and when they are tried again."""

import errno
from base64 import b64encode
from pathlib import Path
from typing import Any

import pytest
import zarr
from httpx import ConnectError
from prefect.task_runners import ThreadPoolTaskRunner
from prefect_dask.task_runners import DaskTaskRunner

from flows import pipeline, stage
from vqmri.codes import CodeStore
from vqmri.errors import InputError, IntegrityError
from vqmri.layout import Layout
from vqmri.scans.store import VolumeStore


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


@pytest.mark.parametrize(
    ("fault", "found"),
    [
        (OSError(errno.ESTALE, "stale file handle"), OSError),
        (OSError("blosc cannot decompress"), IntegrityError),
    ],
)
def test_a_file_server_that_is_away_is_no_damage(
    finished: Layout, monkeypatch: pytest.MonkeyPatch, fault: OSError, found: type[Exception]
) -> None:
    def failing(array: Any, part: Any) -> Any:
        raise fault

    volumes = VolumeStore(finished.output("volumes"))
    codes = CodeStore(finished.output("codes"))
    monkeypatch.setattr(zarr.Array, "__getitem__", failing)
    for read in (lambda: volumes.read(volumes.records[:1]), lambda: codes.read([0])):
        with pytest.raises(found) as caught:
            read()
        assert stage._may_pass(None, None, Ended(caught.value)) is (found is OSError)


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
    preset = Path(__file__).parents[2] / "vqmri/presets" / "hippocampus.yaml"
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


class Runner:
    """In place of Prefect's task: does the work at once."""

    def with_options(self, **_: Any) -> "Runner":
        return self

    def submit(self, function: Any, item: Any) -> "Runner":
        done = Runner()
        vars(done)["result"] = lambda: function(item)
        return done


@pytest.mark.parametrize(("lost_at", "moves"), [(0, 0), (2, 2), (9, 3)])
def test_shards_go_on_where_the_bar_cannot_be_shown(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, lost_at: int, moves: int
) -> None:
    """lost_at: the request that the server does not answer, 0 being that which makes the bar"""
    asked = []

    def ask(*arguments: Any, **_: Any) -> str:
        asked.append(arguments)
        if len(asked) > lost_at:
            raise ConnectError("gone")
        return "bar"

    monkeypatch.setattr(stage, "shard", Runner())
    monkeypatch.setattr(stage, "create_progress_artifact", ask)
    monkeypatch.setattr(stage, "update_progress_artifact", ask)
    assert list(stage.each(abs, [-1, -2, -3])) == [1, 2, 3]
    assert len(asked) == 1 + moves
    assert caplog.text.count("shows less of this run") == (lost_at < 4)


def test_a_server_that_goes_away_is_not_a_fault_of_the_stage() -> None:
    def away() -> None:
        raise ConnectError("gone")

    def faulty() -> None:
        raise InputError("no scans")

    assert pipeline._runs_with_prefect(away) is False
    assert pipeline._runs_with_prefect(lambda: None) is True
    with pytest.raises(InputError):
        pipeline._runs_with_prefect(faulty)


def test_prefect_is_sent_no_slice_of_a_real_scan(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = {"samples.png": b"of nobody", "reconstructions.png": b"of a patient"}
    for name, content in pictures.items():
        (tmp_path / name).write_bytes(content)
    sent: list[Any] = []
    for kind in ("create_markdown_artifact", "create_link_artifact"):
        monkeypatch.setattr(stage, kind, lambda *a, **_: sent.extend(a))
    stage._show_report(tmp_path, {"psnr_db": 25.0})
    text = " ".join(sent)
    held = {name for name, content in pictures.items() if b64encode(content).decode() in text}
    assert held == {"samples.png"}
    assert "| psnr_db | 25 |" in text
