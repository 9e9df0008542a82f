"""What a person sees: results on stdout, messages and progress on stderr, all of one look.

Rich is imported where something is shown, so that help and faults are told in no time. Where nobody
looks (a pipe, a file) results are plain text, and progress is a line now and then.
"""

import multiprocessing
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress

_Item = TypeVar("_Item")
SECONDS_BETWEEN_LINES = 60.0
_REFRESHES_PER_SECOND = 2  # each takes a thread's time from the work
_WIDE = 1000  # where nobody looks, no line is cut


def say(message: str) -> None:
    """One line on stderr, above the bars if there are any."""
    _messages().print(message, markup=False, highlight=False, soft_wrap=True)


def show(values: Mapping[str, Any]) -> None:
    """A result on stdout: a line for each figure, nested ones by their dotted names."""
    table(("", ""), [(name, _figure(value)) for name, value in flat(values).items()])


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Rows on stdout in columns; a head of empty strings is none."""
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(highlight=False, width=None if sys.stdout.isatty() else _WIDE)
    drawn = Table(box=box.SIMPLE_HEAD if any(head) else None, show_header=any(head), pad_edge=False)
    for number, name in enumerate(head):
        drawn.add_column(name, style="bold" if number == 0 else None, overflow="fold")
    for row in rows:
        drawn.add_row(*map(Text, row))
    console.print(drawn)


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings to dotted names."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, Mapping) and value:
            found |= flat(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = value
    return found


def _figure(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(_figure, value)) or "none"
    if isinstance(value, bool) or value is None or value == {}:
        return {True: "yes", False: "no"}.get(value, "none") if value != {} else "none"
    return f"{value:.5g}" if isinstance(value, float) else str(value)


class Bar:
    """Progress of one piece of work; this one shows none."""

    def advance(self, by: float = 1) -> None:
        pass

    def note(self, text: str) -> None:
        """What stands behind the bar."""


class _Drawn(Bar):
    def __init__(self, shown: "Progress", task: Any) -> None:
        self._shown, self._task = shown, task

    def advance(self, by: float = 1) -> None:
        self._shown.advance(self._task, by)

    def note(self, text: str) -> None:
        self._shown.update(self._task, note=text)


class _Lines(Bar):
    """For a log: a line a minute, and none of what is done before that."""

    def __init__(self, title: str, total: float | None, done: float, unit: str) -> None:
        self._title, self._total, self._unit, self._note = title, total, unit, ""
        self._first = self._done = done
        self._began = self._told = time.monotonic()

    def advance(self, by: float = 1) -> None:
        self._done += by
        now = time.monotonic()
        if now - self._told >= SECONDS_BETWEEN_LINES:
            self._told = now
            say(", ".join(filter(None, (self._line(now - self._began), self._note))))

    def note(self, text: str) -> None:
        self._note = text

    def _line(self, gone: float) -> str:
        speed = (self._done - self._first) / gone
        left = None if self._total is None else (self._total - self._done) / speed
        of = "" if self._total is None else f"/{self._total:g}"
        return f"{self._title} {self._done:g}{of}, {pace(speed, self._unit, left, gone)}"


@contextmanager
def progress(
    title: str,
    total: float | None,
    unit: str,
    *,
    done: float = 0,
    inner: bool = False,
    quiet: bool = False,
) -> Iterator[Bar]:
    """A bar with rate and time left, on stderr, while the body runs.

    done: where it begins; inner: within another, it goes when it ends; quiet: show none
    """
    if quiet or multiprocessing.parent_process() is not None:
        yield Bar()  # several processes would draw over one another
        return
    if not sys.stderr.isatty():
        yield Bar() if inner else _Lines(title, total, done, unit)
        return
    shown, task = _display.add(title, total, done, unit)
    try:
        yield _Drawn(shown, task)
    finally:
        _display.end(task, keep=not inner)


def follow(
    items: Iterable[_Item], title: str, total: int | None, unit: str, *, inner: bool = False
) -> Iterator[_Item]:
    """The items, with a bar of how many have been taken."""
    with progress(title, total, unit, inner=inner) as bar:
        for item in items:
            yield item
            bar.advance()


class _Display:
    """The bars that are drawn now, one below another; threads may have one each."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._running = 0
        self._shown: Progress | None = None

    def add(self, title: str, total: float | None, done: float, unit: str) -> tuple[Any, Any]:
        with self._lock:
            if self._shown is None:
                self._shown = _bars()
                self._shown.start()
            self._running += 1
            begun: Any = {"total": total, "completed": done, "unit": unit, "note": ""}
            return self._shown, self._shown.add_task(title, **begun)

    def end(self, task: Any, *, keep: bool) -> None:
        with self._lock:
            assert self._shown is not None
            self._running -= 1
            if not keep:
                self._shown.remove_task(task)
            if self._running == 0:
                self._shown.stop()  # what was drawn last stays
                self._shown = None


_display = _Display()


@cache
def _messages() -> "Console":
    from rich.console import Console

    return Console(stderr=True)


def _bars() -> "Progress":
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn
    from rich.text import Text

    class Pace(ProgressColumn):
        """Rate, and the time that is left or that it took."""

        def render(self, task: Any) -> Text:
            return Text(pace(task.speed, task.fields["unit"], task.time_remaining, task.elapsed))

    return Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        Pace(),
        TextColumn("{task.fields[note]}", markup=False, style="dim"),
        console=_messages(),
        refresh_per_second=_REFRESHES_PER_SECOND,
        redirect_stdout=False,
    )


def pace(speed: float | None, unit: str, left: float | None, gone: float | None) -> str:
    """As "12.3 step/s, 0:01:20 left", or "4.5 s/step, in 0:03:00" at the end; times in seconds."""
    parts = []
    if speed:
        parts.append(f"{speed:.3g} {unit}/s" if speed >= 1 else f"{1 / speed:.3g} s/{unit}")
    if left:
        parts.append(f"{timedelta(seconds=round(left))} left")
    elif left == 0 and gone is not None:
        parts.append(f"in {timedelta(seconds=round(gone))}")
    return ", ".join(parts)
