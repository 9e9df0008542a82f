"""The work folder of a stage that several processes may run together."""

from collections.abc import Iterator
from contextlib import contextmanager

from vqmri.layout import Layout
from vqmri.outputs import Identity, Work, publishing, work_of
from vqmri.training.device import is_leader


@contextmanager
def in_work(data: Layout, name: str, identity: Identity) -> Iterator[Work]:
    """`publishing` for the leader; its work folder, and no more, for the others.

    Raises what `publishing` raises; then the leader ends, and `torchrun` ends the others.
    """
    if is_leader():
        with publishing(data.output(name), data.work, identity) as work:
            yield work
    else:
        yield work_of(data.output(name), data.work, identity)
