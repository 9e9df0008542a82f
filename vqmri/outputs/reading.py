"""Published files as data that anybody may have made: a manifest proves no author."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vqmri.errors import IntegrityError

_NOT_UNDERSTOOD = (
    ArithmeticError, AssertionError, AttributeError, LookupError, RecursionError, TypeError,
    ValueError,
)  # fmt: skip


@contextmanager
def understood(place: Path, remedy: str) -> Iterator[None]:
    """Inside it, content that is not of the form that vqmri writes is an IntegrityError.

    remedy: what to do, as "Make it again with `vqmri ingest`."
    """
    try:
        yield
    except _NOT_UNDERSTOOD as error:
        raise IntegrityError(
            f"{place} is not as this version of vqmri writes it ({type(error).__name__}: {error}). "
            f"{remedy}"
        ) from error
