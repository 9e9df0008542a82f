"""What came of each scan, kept beside the volumes, so that the next ingest need not read it again.

One JSON file per shard of the store. Of scans whose key is known the volume is copied.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
from jaxtyping import Float
from pydantic import TypeAdapter

from vqmri.errors import VqmriError
from vqmri.outputs import Manifest, replace_file, sha256_of
from vqmri.outputs.manifest import MANIFEST
from vqmri.scans.check import PASSING
from vqmri.scans.quality import Look
from vqmri.scans.store import VolumeStore, volumes_per_shard
from vqmri.scans.volume import Record, Rejection

FOLDER = "outcomes"


@dataclass(frozen=True)
class Outcome:
    """Of one scan: a record, with a look if it is no picture, or a rejection.

    key: digest of the scan's files and of all values that decide what it becomes
    """

    key: str
    record: Record | None = None
    look: Look | None = None
    rejection: Rejection | None = None

    @property
    def may_pass(self) -> bool:
        """Whether the machine may be at fault, so that the scan is tried again."""
        return self.rejection is not None and self.rejection.code in PASSING


_OUTCOMES = TypeAdapter(list[Outcome])


def write(folder: Path, shard: int, outcomes: Sequence[Outcome]) -> None:
    """Write those of one shard; that it is there says that the shard's volumes are too."""
    text = json.dumps(outcomes, default=vars)  # `asdict` would copy all of it first
    replace_file(folder / _name(shard), text.encode())


def read(folder: Path, shard: int) -> list[Outcome] | None:
    """Those of one shard, or None if it was not finished."""
    path = folder / _name(shard)
    if not path.is_file():
        return None
    return _OUTCOMES.validate_json(path.read_bytes())


def _name(shard: int) -> str:
    return f"{shard:05d}.json"


class Earlier:
    """Published volumes from which scans that have not changed are taken."""

    def __init__(self, folder: Path) -> None:
        """Open `folder`; VqmriError when it is not whole."""
        self._manifest = Manifest.read(folder)
        self._store = VolumeStore(folder)
        self._folder = folder
        self._per_shard = volumes_per_shard(self._store.shape)
        self._shard = lru_cache(maxsize=2)(self._read_shard)

    def keys(self) -> dict[str, int]:
        """Key of each volume to its index."""
        last = max((record.index for record in self._store.records), default=-1)
        return {
            outcome.key: index
            for shard in range(last // self._per_shard + 1)
            for index, outcome in self._shard(shard).items()
        }

    def take(self, index: int) -> tuple[Float[np.ndarray, "channel *space"], Record, Look | None]:
        """A volume, its record and look; IntegrityError when it is damaged."""
        outcome = self._shard(index // self._per_shard)[index]
        assert outcome.record is not None
        return self._store.read([outcome.record])[0], outcome.record, outcome.look

    def _read_shard(self, shard: int) -> dict[int, Outcome]:
        name = f"{FOLDER}/{_name(shard)}"
        self._manifest.check(self._folder, [name])
        outcomes: Iterable[Outcome] = read(self._folder / FOLDER, shard) or []
        return {o.record.index: o for o in outcomes if o.record is not None}


def earlier(folder: Path) -> Earlier:
    """What is published in `folder` now, opened once per process; VqmriError if it is not whole."""
    manifest = folder / MANIFEST
    return _earlier(folder, sha256_of(manifest) if manifest.is_file() else "")


@lru_cache(maxsize=1)
def _earlier(folder: Path, digest: str) -> Earlier:
    return Earlier(folder)


def keys_of(folder: Path) -> dict[str, int]:
    """Key to index of the volumes published in `folder`; {} where none can be taken over."""
    try:
        return earlier(folder).keys()
    except (VqmriError, OSError, KeyError, TypeError, ValueError):  # absent, damaged, of old code
        return {}
