"""Whether the disk has room for what is about to be written."""

import shutil
from pathlib import Path

from vqmri.errors import StorageError
from vqmri.outputs.publish import Work
from vqmri.outputs.rehearsal import begins


def need_space(work: Work, needed: int) -> None:
    """Raise StorageError when the disk cannot take an output of at least `needed` bytes.

    What a killed run has written of it counts as written. Called before the work, with the least
    that it can be: a disk that fills up all the same ends the stage with the same exit code. A
    rehearsal ends here.
    """
    written = sum(path.stat().st_size for path in work.out.rglob("*") if path.is_file())
    left = free(work.out)
    if left < needed - written:
        raise StorageError(
            f"{work.out.parent.parent}: at least {_as_text(needed - written)} will be written, and "
            f"the disk has {_as_text(left)} left. Nothing was begun. Make room (`vqmri clean` "
            "removes abandoned work), put the whole clone on a larger disk, or mount one at "
            "data/: behind a link DVC finds nothing."
        )
    begins(max(0, needed - written))


def free(place: Path) -> int:
    """Bytes of the disk that a file or folder is on, or would be on."""
    there = next(folder for folder in (place, *place.absolute().parents) if folder.exists())
    return shutil.disk_usage(there).free


def _as_text(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e8 else f"{size / 1e6:.2f} MB"
