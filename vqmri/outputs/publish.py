"""An output appears whole, by rename, or not at all."""

import os
import shutil
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from vqmri.errors import InputError, IntegrityError, LockedError
from vqmri.outputs.lock import hold
from vqmri.outputs.manifest import Identity, Manifest, verify
from vqmri.outputs.rehearsal import rehearsed

_DIGITS = 16  # of the fingerprint, in the name of a work folder


@dataclass(frozen=True)
class Work:
    """Where a stage works before it publishes; a killed stage finds both as it left them.

    out: becomes the published folder
    state: what is needed to resume (checkpoints, lists of finished shards); never published
    """

    out: Path
    state: Path


@contextmanager
def publishing(target: Path, work_root: Path, identity: Identity) -> Iterator[Work]:
    """Give a work folder; when the body ends without an error, publish `work.out` as `target`.

    The old output stays in place until the new one is complete on the disk. `work_root` is on the
    same file system as `target`. Raises LockedError when another process has this output in hand.
    In a rehearsal neither folder is made, and nothing is published.
    """
    with hold(work_root / f"{target.name}.lock"):
        work = work_of(target, work_root, identity)
        if rehearsal := rehearsed():
            rehearsal.target, rehearsal.identity = target, identity
            rehearsal.resumes = work.out.exists()
            yield work
            return
        old = work_root / f"{target.name}.old"
        _recover(target, old)
        _remove_published(work)
        work.state.mkdir(parents=True, exist_ok=True)
        work.out.mkdir(exist_ok=True)
        _remove_fragments(work.out.parent)
        yield work
        _remove_fragments(work.out)  # of a worker that died while the others did its share too
        Manifest.of(work.out, identity).write(work.out)
        sync(work.out)
        _swap(work.out, target, old)
        for left in _work_folders(work_root, target.name):
            shutil.rmtree(left)


def work_of(target: Path, work_root: Path, identity: Identity) -> Work:
    """Where `publishing` works, whether or not it has begun."""
    folder = work_root / f"{target.name}-{identity.fingerprint[:_DIGITS]}"
    return Work(folder / "out", folder / "state")


def is_current(target: Path, work_root: Path, identity: Identity) -> bool:
    """Whether `target` is what a stage of this identity would publish, and whole.

    Every byte is looked at. What a kill left beside a published output goes.
    Raises LockedError when another process has this output in hand.
    """
    with hold(work_root / f"{target.name}.lock"):
        if not rehearsed():
            _recover(target, work_root / f"{target.name}.old")
            _remove_published(work_of(target, work_root, identity))
        try:
            return verify(target).fingerprint == identity.fingerprint
        except (InputError, IntegrityError):
            return False


def _work_folders(work_root: Path, name: str) -> list[Path]:
    """Those of one output, and not of another whose name merely begins in the same way."""
    return sorted(work_root.glob(f"{name}-" + "[0-9a-f]" * _DIGITS))


def _remove_published(work: Work) -> None:
    """Remove a work folder without output: of no use, for it is published, or was never begun."""
    if not work.out.exists():
        shutil.rmtree(work.out.parent, ignore_errors=True)


def _remove_fragments(folder: Path) -> None:
    """What a kill left of files that were being written: zarr's `.partial`, our own `.part`."""
    for path in (*folder.rglob("*.partial"), *folder.rglob(".*.part")):
        path.unlink()


def _recover(target: Path, old: Path) -> None:
    """Undo or finish a swap that a kill cut in two."""
    if old.exists():
        if target.exists():
            shutil.rmtree(old)
        else:
            old.rename(target)


def _swap(new: Path, target: Path, old: Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    if target.exists():
        target.rename(old)
    new.rename(target)
    _sync_folder(target.parent)
    shutil.rmtree(old, ignore_errors=True)


def clean(work_root: Path) -> list[Path]:
    """Remove the work folders that no process is using; returns what was, or would be, removed.

    Nothing goes of an output that is being written now; LockedError names it when the rest is gone.
    """
    removed: list[Path] = []
    in_hand: list[str] = []
    for lock in sorted(work_root.glob("*.lock")):
        try:
            with hold(lock):
                removed += _removed(_work_folders(work_root, lock.stem))
        except LockedError as error:
            in_hand.append(str(error))
    if in_hand:
        lines = "\n".join(dict.fromkeys(in_hand))  # a stage may hold two locks of an output
        what = "It would remove" if rehearsed() else "Removed"
        told = ", ".join(map(str, removed)) or "nothing"
        raise LockedError(f"{lines}\n{what} of the others: {told}")
    return removed


def _removed(folders: list[Path]) -> list[Path]:
    if not rehearsed():
        for folder in folders:
            shutil.rmtree(folder)
    return folders


def replace_file(path: Path, data: bytes) -> None:
    """Write a single file whole or not at all: beside it, to the disk, then rename.

    Two that write it at once do not meet: a worker that was thought dead may come back.
    """
    _make_folder(path.parent)
    beside = path.with_name(f".{path.name}.{uuid4().hex}.part")
    try:
        with beside.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except BaseException:
        beside.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def _make_folder(folder: Path) -> None:
    """With its parents; those that name new ones are on the disk afterwards."""
    new = [place for place in (folder, *folder.parents) if not place.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for place in new:
        _sync_folder(place.parent)


def sync(folder: Path, top: Path | None = None) -> None:
    """Bring all of a folder to the disk: files side by side, then the folders that name them.

    top: a folder above, up to which the folders that lead here are brought there too
    """
    below = [Path(root) for root, _, _ in os.walk(folder)]
    above = [place for place in folder.parents if top and place.is_relative_to(top)]
    files = [path for place in below for path in place.iterdir() if path.is_file()]
    with ThreadPoolExecutor() as pool:
        list(pool.map(_sync_file, files))
    for place in (*below, *above):
        if place.is_dir():  # there is none where a shard has nothing but the fill value
            _sync_folder(place)


def _sync_file(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
