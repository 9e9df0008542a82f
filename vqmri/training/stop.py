"""SIGTERM and Ctrl-C, held back until a checkpoint is written."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGTERM, signal.SIGINT)


@contextmanager
def held_back() -> Iterator[Callable[[], bool]]:
    """Within the block the signals only make the callable true; they are delivered at its end.

    A second one is delivered at once, for whoever cannot wait. A signal that this process ignores
    stays ignored, and outside the main thread, where Python allows no handlers, none is held back.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    came: list[int] = []

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def note(number: int, frame: FrameType | None) -> None:
        if came:
            came.clear()
            restore()
            signal.raise_signal(number)
        else:
            came.append(number)

    found = {number: signal.getsignal(number) for number in _SIGNALS}
    before = {n: handler for n, handler in found.items() if handler not in (None, signal.SIG_IGN)}
    for number in before:
        signal.signal(number, note)
    try:
        yield lambda: bool(came)
    finally:
        restore()
        if came:
            signal.raise_signal(came[0])
