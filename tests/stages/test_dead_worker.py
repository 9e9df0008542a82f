"""SIGKILL of one worker of several, with a shard half written: another does it, or a rerun."""

import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from flows.stage import said_plainly
from tests.conftest import tiny_values
from tests.faults import Record, tell
from tests.stages.dying import encode_or_die
from vqmri.errors import InterruptedRunError
from vqmri.layout import Layout
from vqmri.outputs import verify
from vqmri.params import Params
from vqmri.protocols import Map
from vqmri.stages.encode import encode
from vqmri.stages.workers import processes


def dying(on: Map, once: str = "") -> Map:
    """The stage's `each`, of which a worker ends in the middle of a shard."""

    def each(function: Callable[[Any], Any], items: Iterable[Any], /) -> Iterator[Any]:
        yield from on(encode_or_die, [(item, once) for item in items])

    return each


def emptied(data: Layout) -> bytes:
    """Take the codes away; what their manifest was."""
    expected = (data.output("codes") / "MANIFEST.json").read_bytes()
    shutil.rmtree(data.output("codes"))
    shutil.rmtree(data.work)
    return expected


def fragments(data: Layout) -> list[Path]:
    return [path for path in data.work.rglob("*.partial") if path.stat().st_size]


def is_made(data: Layout, expected: bytes) -> bool:
    verify(data.output("codes"))
    return (data.output("codes") / "MANIFEST.json").read_bytes() == expected


@contextmanager
def cluster(deaths: int) -> Iterator[Map]:
    """Two workers on loopback; a shard may end so many of them."""
    import dask
    from distributed import Client, LocalCluster

    options = {"threads_per_worker": 1, "host": "127.0.0.1", "dashboard_address": "127.0.0.1:0"}
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": deaths}),
        LocalCluster(n_workers=2, silence_logs=50, **options) as workers,  # type: ignore[no-untyped-call]
        Client(workers) as client,  # type: ignore[no-untyped-call]
    ):

        def on(function: Callable[[Any], Any], items: Iterable[Any], /) -> Iterator[Any]:
            futures = client.map(function, list(items), pure=False)
            with said_plainly():
                yield from [future.result() for future in futures]

        yield on


@pytest.mark.faults
def test_a_process_ends_and_a_rerun_goes_on(
    copy_of_finished: Layout, record_property: Record
) -> None:
    data, params = copy_of_finished, Params.model_validate(tiny_values())
    expected = emptied(data)
    with pytest.raises(InterruptedRunError, match="goes on from here"):
        encode(params, data, each=dying(processes(2)))
    assert not data.output("codes").exists()
    assert fragments(data)
    encode(params, data, each=processes(2))
    assert is_made(data, expected)
    tell(record_property, "SIGKILL of one process of two", 1, 1, "exit code 4; a rerun goes on")


@pytest.mark.faults
@pytest.mark.services
def test_another_dask_worker_does_the_shard(
    copy_of_finished: Layout, tmp_path: Path, record_property: Record
) -> None:
    """The fragment that the dead one leaves is not published."""
    data, params = copy_of_finished, Params.model_validate(tiny_values())
    expected = emptied(data)
    seen: list[Path] = []
    with cluster(deaths=3) as on:

        def watched(function: Callable[[Any], Any], items: Iterable[Any], /) -> Iterator[Any]:
            yield from on(function, items)
            seen.extend(fragments(data))

        encode(params, data, each=dying(watched, str(tmp_path / "dead")))
    assert (tmp_path / "dead").exists()
    assert seen
    assert is_made(data, expected)
    tell(record_property, "SIGKILL of one Dask worker of two", 1, 1, "the other does its shard")


@pytest.mark.faults
@pytest.mark.services
def test_a_shard_that_ends_dask_workers_ends_the_run(
    copy_of_finished: Layout, record_property: Record
) -> None:
    data, params = copy_of_finished, Params.model_validate(tiny_values())
    expected = emptied(data)
    with cluster(deaths=0) as on, pytest.raises(InterruptedRunError, match="memory") as caught:
        encode(params, data, each=dying(on))
    assert caught.value.exit_code == 4
    assert not data.output("codes").exists()
    encode(params, data)
    assert is_made(data, expected)
    tell(record_property, "a shard that ends its Dask workers", 1, 1,
         "exit code 4; a rerun goes on")  # fmt: skip
