"""The errors that a user can meet, each with a fixed exit code."""


class VqmriError(Exception):
    """Base of all expected errors; its text says what is wrong, where, and what to do next."""

    exit_code = 1


class ParamsError(VqmriError):
    """params.yaml is faulty; nothing was written."""

    exit_code = 2


class OutOfMemoryError(VqmriError):
    """What params.yaml asks for does not fit into the device's memory."""

    exit_code = 2


class InputError(VqmriError):
    """There is nothing usable to work on: no scans, or an earlier stage's output is missing."""

    exit_code = 3


class InterruptedRunError(VqmriError):
    """A part of the run was ended from outside; the same command goes on from there."""

    exit_code = 4


class StorageError(VqmriError):
    """The disk has no room for what would be written; nothing was begun."""

    exit_code = 5


class LockedError(VqmriError):
    """Another process is writing the same output."""

    exit_code = 6


class IntegrityError(VqmriError):
    """Stored bytes are not the bytes that were written, or outputs do not belong together."""

    exit_code = 7


class DivergedError(VqmriError):
    """The training loss is not a finite number."""

    exit_code = 8


STORAGE = 5
"""Exit code when the disk or the file system refused."""

INTERRUPTED = 4
"""Exit code of a run that was stopped and that the same command resumes."""
