"""Whether the disk has room for what is about to be written."""

import shutil

from vqmri.errors import StorageError
from vqmri.outputs.publish import Work


def need_space(work: Work, needed: int) -> None:
    """Raise StorageError when the disk cannot take an output of at least `needed` bytes.

    What a killed run has written of it counts as written. Called before the work, with the least
    that it can be: a disk that fills up all the same ends the stage with the same exit code.
    """
    written = sum(path.stat().st_size for path in work.out.rglob("*") if path.is_file())
    free = shutil.disk_usage(work.out).free
    if free < needed - written:
        raise StorageError(
            f"{work.out.parent.parent}: at least {_as_text(needed - written)} will be written, and "
            f"the disk has {_as_text(free)} left. Nothing was begun. Make room (`vqmri clean` "
            "removes abandoned work), or let data/ be a link to a larger disk."
        )


def _as_text(size: int) -> str:
    return f"{size / 1e9:.2f} GB" if size >= 1e8 else f"{size / 1e6:.2f} MB"
