"""The work folder of a stage that several processes may run together."""

from collections.abc import Iterator
from contextlib import contextmanager

from vqmri.layout import Layout
from vqmri.outputs import Identity, Work, publishing, work_of
from vqmri.protocols import Tracker
from vqmri.training.device import is_leader


@contextmanager
def in_work(data: Layout, name: str, identity: Identity, tracker: Tracker) -> Iterator[Work]:
    """`publishing` for the leader; its work folder, and no more, for the others.

    Work that a killed run left goes on under that run's name in `tracker`.

    Raises what `publishing` raises; then the leader ends, and `torchrun` ends the others.
    """
    if is_leader():
        with publishing(data.output(name), data.work, identity) as work:
            tracker.resume(work.state)
            yield work
    else:
        yield work_of(data.output(name), data.work, identity)
