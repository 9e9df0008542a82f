"""Shards on several processes of this machine."""

import multiprocessing
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing.connection import wait
from typing import Any

import torch
from threadpoolctl import threadpool_limits

from vqmri.errors import InterruptedRunError
from vqmri.protocols import Map


def processes(number: int) -> Map:
    """`map` on `number` processes of one thread each; results come in the order of the items.

    The processes are forked from a server that has imported what they need, because a process that
    has threads cannot be forked safely. They end with the process that asked for them.
    Raises InterruptedRunError when one of them is ended from outside.
    """

    def each(function: Callable[[Any], Any], items: Iterable[Any], /) -> Iterator[Any]:
        with pool(number, function.__module__) as workers:
            try:
                yield from workers.map(function, items)
            except BrokenProcessPool:
                raise InterruptedRunError(
                    "a process was ended from outside, perhaps for want of memory. Ask for fewer "
                    "with `--workers`; the same command goes on from here."
                ) from None

    return each


@contextmanager
def pool(number: int, module: str) -> Iterator[ProcessPoolExecutor]:
    """The processes, which begin with their first work; `module` is imported once for all."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([module])
    workers = ProcessPoolExecutor(number, context, _alone)
    try:
        yield workers
    finally:
        workers.shutdown(wait=True, cancel_futures=True)


def _alone() -> None:
    """One thread, and no life after the parent's."""
    torch.set_num_threads(1)
    threadpool_limits(1)
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
