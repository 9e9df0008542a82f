import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from tests.faults import Record, tell
from vqmri.errors import LockedError
from vqmri.outputs import Identity, Manifest, publishing, replace_file, verify
from vqmri.outputs.lock import hold
from vqmri.outputs.publish import Work, clean, is_current, work_of
from vqmri.outputs.rehearsal import rehearsing

ONE = Identity("encode", 1, {"seed": 1}, {})
TWO = replace(ONE, params={"seed": 2})

# Works in the body: leaves a file in `out` and one in `state`, says so, and never ends.
WORKER = """
import sys, time
from pathlib import Path
from vqmri.outputs import Identity, publishing
with publishing(Path(sys.argv[1]), Path(sys.argv[2]), Identity("encode", 1, {"seed": 2}, {})) as w:
    (w.out / "a").write_text("half")
    (w.state / "step").write_text("7")
    print("working", flush=True)
    time.sleep(60)
"""

# Publishes once in each of many folders, and is killed before one step later every time: before its
# first operation on the file system, its second, and so on, until one run comes to its end.
KILLED_AT_EVERY_STEP = """
import os, signal, sys
from pathlib import Path
from vqmri.outputs import Identity, publishing

STEPS = ("open", "os.mkdir", "os.rename", "os.remove", "os.rmdir")

def publish(root, text, identity):
    with publishing(root / "data" / "codes", root / "data" / ".work", identity) as work:
        (work.out / "a").write_text(text)

def run(root, fatal):
    step = -1
    def hook(event, arguments):
        nonlocal step
        if event in STEPS:
            step += 1
            if step == fatal:
                os.kill(os.getpid(), signal.SIGKILL)
    sys.addaudithook(hook)
    publish(root, "new", Identity("encode", 1, {"seed": 2}, {}))

status, fatal = 1, 0
while status:
    root = Path(sys.argv[1]) / str(fatal)
    publish(root, "old", Identity("encode", 1, {"seed": 1}, {}))
    child = os.fork()
    if not child:
        run(root, fatal)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    assert status in (0, signal.SIGKILL)
    fatal += 1
"""


class StoppedError(Exception):
    def __init__(self, work: Work) -> None:
        super().__init__()
        self.work = work


class Place:
    """An output and its work root in a folder of their own."""

    def __init__(self, root: Path) -> None:
        self.target = root / "data" / "codes"
        self.work_root = root / "data" / ".work"
        self.old = self.work_root / "codes.old"

    def publish(self, text: str, identity: Identity = ONE) -> None:
        with self.open(identity) as work:
            (work.out / "a").write_text(text)

    @contextmanager
    def open(self, identity: Identity = ONE) -> Iterator[Work]:
        with publishing(self.target, self.work_root, identity) as work:
            yield work

    def stop(self, text: str, identity: Identity) -> Work:
        """Begin, leave something in both folders, and fail."""
        with pytest.raises(StoppedError) as caught:
            self._begin(text, identity)
        return caught.value.work

    def _begin(self, text: str, identity: Identity) -> None:
        with self.open(identity) as work:
            (work.out / "a").write_text(text)
            (work.state / "step").write_text(text)
            raise StoppedError(work)

    def holds(self, text: str, identity: Identity = ONE) -> bool:
        """Whether `text` is published, whole, and made by `identity`."""
        manifest = verify(self.target)
        return (
            manifest.fingerprint == identity.fingerprint
            and list(manifest.items) == ["a"]
            and (self.target / "a").read_text() == text
        )

    def left(self) -> list[str]:
        return sorted(path.name for path in self.work_root.iterdir())


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_an_output_appears_with_its_manifest_and_nothing_is_left(place: Place) -> None:
    with place.open() as work:
        (work.out / "a").write_text("text")
        (work.state / "step").write_text("7")
        assert not place.target.exists()
    assert place.holds("text")
    assert place.left() == ["codes.lock"]


def test_a_new_output_replaces_the_old_one_wholly(place: Place) -> None:
    with place.open() as work:
        (work.out / "only-in-the-old").write_text("")
    with place.open(TWO) as work:
        (work.out / "a").write_text("new")
        assert (place.target / "only-in-the-old").exists()
    assert place.holds("new", TWO)


def test_an_error_in_the_body_leaves_no_output(place: Place) -> None:
    place.stop("half", ONE)
    assert not place.target.exists()


def test_an_error_in_the_body_leaves_the_old_output(place: Place) -> None:
    place.publish("old")
    place.stop("half", TWO)
    assert place.holds("old")


def test_the_same_identity_finds_its_work_again(place: Place) -> None:
    place.stop("half", TWO)
    with place.open(TWO) as work:
        assert (work.out / "a").read_text() == "half"
        assert (work.state / "step").read_text() == "half"
        (work.out / "a").write_text("whole")
    assert place.holds("whole", TWO)


def test_another_identity_works_elsewhere(place: Place) -> None:
    first = place.stop("half", ONE)
    with place.open(TWO) as work:
        assert work.out != first.out
        assert work.state != first.state
        assert not list(work.out.iterdir())
        assert not list(work.state.iterdir())
        assert (first.out / "a").read_text() == "half"


def test_publishing_removes_all_work_of_this_output(place: Place) -> None:
    place.stop("half", ONE)
    place.publish("whole", TWO)
    assert place.left() == ["codes.lock"]


def test_publishing_leaves_the_work_of_other_outputs(place: Place) -> None:
    """`codes-big` begins like a work folder of `codes`, and may be in use at this moment."""
    other = place.target.with_name("codes-big")
    with publishing(other, place.work_root, ONE) as work:
        (work.out / "a").write_text("big")
        place.publish("small")
        assert (work.out / "a").read_text() == "big"
    verify(other)
    assert place.holds("small")


def test_a_kill_between_the_two_renames_is_undone(place: Place) -> None:
    place.publish("old")
    place.target.rename(place.old)
    place.stop("half", TWO)
    assert place.holds("old")
    assert not place.old.exists()


def test_a_kill_after_both_renames_is_finished(place: Place) -> None:
    place.publish("older")
    place.target.rename(place.old)
    # Made elsewhere, since a start here would put the older one back.
    apart = Place(place.work_root / "apart")
    apart.publish("new", TWO)
    apart.target.rename(place.target)
    place.stop("half", ONE)
    assert place.holds("new", TWO)
    assert not place.old.exists()


def test_a_kill_before_the_cleaning_starts_afresh(place: Place) -> None:
    """`out` has become the target; a state that says "all done" would now be wrong."""
    work = place.stop("half", ONE)
    Manifest.of(work.out, ONE).write(work.out)
    work.out.rename(place.target)
    with place.open(ONE) as again:
        assert again == work
        assert not list(again.state.iterdir())
        assert not list(again.out.iterdir())
        (again.out / "a").write_text("again")
    assert place.holds("again")


def test_what_a_kill_before_the_cleaning_left_goes_where_nothing_is_to_be_done(
    place: Place,
) -> None:
    """Ingest asks first, and does not begin; `SIGKILL in ingest` found it."""
    place.publish("done")
    left = work_of(place.target, place.work_root, ONE)
    left.state.mkdir(parents=True)
    assert is_current(place.target, place.work_root, ONE)
    assert not left.state.parent.exists()


def test_a_kill_after_the_manifest_was_written_is_resumed(place: Place) -> None:
    work = place.stop("half", ONE)
    Manifest.of(work.out, ONE).write(work.out)
    place.publish("whole")
    assert place.holds("whole")


def test_a_killed_stage_leaves_the_old_output_and_is_resumed(place: Place) -> None:
    place.publish("old")
    command = [sys.executable, "-c", WORKER, str(place.target), str(place.work_root)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "working\n"
        with pytest.raises(LockedError, match=f"process {process.pid} "), place.open(TWO):
            pass
        process.kill()
    assert place.holds("old")
    with place.open(TWO) as work:
        assert (work.state / "step").read_text() == "7"
        assert (work.out / "a").read_text() == "half"
        (work.out / "a").write_text("whole")
    assert place.holds("whole", TWO)


@pytest.mark.faults
@pytest.mark.parametrize("times", [1, pytest.param(5, marks=pytest.mark.long)])
def test_a_kill_at_any_step_leaves_a_whole_output(
    times: int, tmp_path: Path, record_property: Record
) -> None:
    steps = sum(_killed_at_every_step(tmp_path / str(number)) for number in range(times))
    assert steps > 8 * times
    tell(record_property, "SIGKILL at each step of publishing", steps, steps,
         "the old output or the new one, whole")  # fmt: skip


def _killed_at_every_step(tmp_path: Path) -> int:
    tmp_path.mkdir()
    subprocess.run([sys.executable, "-c", KILLED_AT_EVERY_STEP, str(tmp_path)], check=True)
    places = [Place(tmp_path / str(number)) for number in range(len(list(tmp_path.iterdir())))]
    published = []
    for place in places:
        if place.target.exists():  # a reader that comes at once finds it whole
            verify(place.target)
        place.stop("half", replace(ONE, params={"seed": 3}))  # any start recovers
        published.append((place.target / "a").read_text())
        assert place.holds(published[-1], {"old": ONE, "new": TWO}[published[-1]])
        assert not place.old.exists()
    # The old one up to some step, then the new one; and the kills did fall on both sides of it.
    turn = published.index("new")
    assert published == ["old"] * turn + ["new"] * (len(places) - turn)
    assert turn > 5
    assert len(places) - turn > 3
    return len(places) - 1  # the last one came to its end


def test_one_writer_per_output(place: Place) -> None:
    with place.open(ONE) as work:
        with pytest.raises(LockedError, match="codes is being written"), place.open(TWO):
            pass
        (work.out / "a").write_text("whole")
    assert place.holds("whole")


def test_links_into_a_cache_are_not_written_through(place: Place, tmp_path: Path) -> None:
    place.publish("old")
    cached = tmp_path / "cached"
    (place.target / "a").rename(cached)
    cached.chmod(0o444)
    (place.target / "a").symlink_to(cached)
    place.publish("new", TWO)
    assert place.holds("new", TWO)
    assert cached.read_text() == "old"


def test_clean_removes_abandoned_work_and_no_output(place: Place) -> None:
    place.publish("old")
    one, two = place.stop("half", ONE), place.stop("half", TWO)
    assert set(clean(place.work_root)) == {one.out.parent, two.out.parent}
    assert place.left() == ["codes.lock"]
    assert place.holds("old")
    assert clean(place.work_root) == []


def test_clean_leaves_work_that_is_in_use(place: Place) -> None:
    abandoned = place.stop("half", ONE)
    with hold(place.work_root / "codes.lock"), pytest.raises(LockedError):
        clean(place.work_root)
    assert (abandoned.out / "a").read_text() == "half"
    assert clean(place.work_root) == [abandoned.out.parent]


def test_clean_goes_on_past_work_that_is_in_use(place: Place) -> None:
    mine = place.stop("half", ONE).out.parent
    other = place.work_root / "volumes-0123456789abcdef"
    other.mkdir()
    (place.work_root / "volumes.lock").touch()
    with hold(place.work_root / "codes.lock"), hold(place.work_root / "codes.run.lock"):
        with rehearsing(), pytest.raises(LockedError, match=rf"It would remove .*: {other}$"):
            clean(place.work_root)
        assert other.exists()
        with pytest.raises(LockedError, match=rf"(?s)^codes .*Removed .*: {other}$") as caught:
            clean(place.work_root)
    assert str(caught.value).count("codes is being written") == 1
    assert mine.exists()
    assert not other.exists()


def test_clean_of_nothing(tmp_path: Path) -> None:
    assert clean(tmp_path / "absent") == []


def test_replace_file_makes_and_replaces(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.json"
    replace_file(path, b"old")
    replace_file(path, b"new")
    assert path.read_bytes() == b"new"
    assert list(path.parent.iterdir()) == [path]


def test_replace_file_breaks_a_link_and_spares_its_aim(tmp_path: Path) -> None:
    (tmp_path / "cached").write_bytes(b"old")
    (tmp_path / "file").symlink_to(tmp_path / "cached")
    replace_file(tmp_path / "file", b"new")
    assert (tmp_path / "cached").read_bytes() == b"old"
    assert (tmp_path / "file").read_bytes() == b"new"


def test_replace_file_keeps_the_old_content_if_writing_fails(tmp_path: Path) -> None:
    path = tmp_path / "file"
    replace_file(path, b"old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    # As on a full disk: the system takes the first bytes and refuses the rest.
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            replace_file(path, bytes(100_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == b"old"
    replace_file(path, b"new")
    assert path.read_bytes() == b"new"
