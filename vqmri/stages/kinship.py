"""Whether published outputs were made of one another."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from vqmri.errors import IntegrityError

Kinship = tuple[str, str, str, str]
"""What was made, of what, the hash that it remembers, and the hash of what is published."""


def check_kinship(folders: Mapping[str, Path], claims: Iterable[Kinship]) -> None:
    """IntegrityError when an output was made of another thing than the one published."""
    for name, of, found, expected in claims:
        if found != expected:
            raise IntegrityError(
                f"{folders[name]} was made with other {of} ({found[:16]}) than those in "
                f"{folders[of]} ({expected[:16]}). Run `dvc repro`."
            )
