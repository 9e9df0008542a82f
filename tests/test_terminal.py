"""What is shown, on a terminal and where nobody looks."""

import os
import pty
import subprocess
import sys

import pytest

from vqmri.terminal import flat, follow, pace, progress, say, show, table

BARS = """
import sys
from threading import Thread
from vqmri.terminal import follow, progress, say, show
def inner(name):
    for _ in follow(range(3), name, 3, "step", inner=True):
        pass
for part in follow(range(2), "outer", 2, "part"):
    threads = [Thread(target=inner, args=(f"inner {i}",)) for i in range(2)]
    for thread in threads: thread.start()
    for thread in threads: thread.join()
    say(f"part {part} [done]")
with progress("later", 400, "step", done=100) as bar:
    bar.advance(300)
    bar.note("loss 0.5")
show({"loss": 0.5})
"""


def test_results_are_plain_columns_on_stdout(capsys: pytest.CaptureFixture[str]) -> None:
    show({"psnr_db": 27.123456, "models": {"vqvae": 3, "prior": None}, "new": True, "none": []})
    said = capsys.readouterr()
    assert [line.split() for line in said.out.splitlines()] == [
        ["psnr_db", "27.123"],
        ["models.vqvae", "3"],
        ["models.prior", "none"],
        ["new", "yes"],
        ["none", "none"],
    ]
    table(("stage", "what"), [("encode", "x" * 300 + " [bold]")])
    said = capsys.readouterr()
    assert "x" * 300 + " [bold]" in said.out  # neither cut nor taken for markup
    assert "\x1b" not in said.out


def test_a_log_has_a_line_a_minute(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    seconds = iter([0.0, 20.0, 61.0, 100.0, 125.0, 0.0, 90.0])
    monkeypatch.setattr("vqmri.terminal.time.monotonic", lambda: next(seconds))
    with progress("train", 1000, "step", done=400) as bar:
        bar.advance(40)
        bar.advance(82)  # at 61 s
        bar.note("loss 0.5")
        bar.advance(60)
        bar.advance(68)  # at 125 s
    with progress("way", None, "way") as bar:
        bar.advance()
    assert capsys.readouterr() == (
        "",
        "train 522/1000, 2 step/s, 0:03:59 left\n"
        "train 650/1000, 2 step/s, 0:02:55 left, loss 0.5\n"
        "way 1, 90 s/way\n",
    )


def test_nothing_is_drawn_where_nobody_looks(capsys: pytest.CaptureFixture[str]) -> None:
    with progress("train", 3, "step") as bar:
        assert list(follow("abc", "inner", 3, "letter", inner=True)) == ["a", "b", "c"]
        bar.advance()
        bar.note("loss 1")
    assert capsys.readouterr() == ("", "")
    say("a message of a [kind]")
    assert capsys.readouterr() == ("", "a message of a [kind]\n")


def test_bars_of_several_threads_share_a_terminal_and_leave_stdout_alone() -> None:
    terminal, end = pty.openpty()
    shell = {k: v for k, v in os.environ.items() if k not in ("NO_COLOR", "COLUMNS")}
    child = subprocess.Popen(
        [sys.executable, "-c", BARS],
        env=shell | {"TERM": "xterm-256color", "COLUMNS": "120"},
        stdout=subprocess.PIPE, stderr=end, text=True,
    )  # fmt: skip
    os.close(end)
    shown = ""
    try:
        while more := os.read(terminal, 4096).decode(errors="replace"):
            shown += more
    except OSError:  # the other end is closed
        pass
    out, _ = child.communicate(timeout=60)
    os.close(terminal)
    assert child.returncode == 0, shown
    assert out.split() == ["loss", "0.5"]
    last = shown.rsplit("part 1 [done]", 1)[1]
    assert "2/2" in last
    assert "inner" not in last.split("2/2")[1]  # those within go when they end
    assert "400/400" in last
    assert "loss 0.5" in last


def test_the_pace_is_told_by_the_larger_unit() -> None:
    assert pace(12.34, "step", 80, 5) == "12.3 step/s, 0:01:20 left"
    assert pace(0.25, "step", 0, 180) == "4 s/step, in 0:03:00"
    assert pace(None, "step", None, 0) == ""


def test_nested_values_have_dotted_names() -> None:
    assert flat({"a": {"b": 1, "c": {}}, "d": [2]}) == {"a.b": 1, "a.c": {}, "d": [2]}
