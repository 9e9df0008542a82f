"""What a rehearsed start would read and write, in plain values for a person or a program."""

from pathlib import Path
from typing import Any

from vqmri.errors import InputError, IntegrityError
from vqmri.layout import MADE_BY, Layout
from vqmri.outputs import Identity, Manifest
from vqmri.outputs.rehearsal import Rehearsal
from vqmri.outputs.space import free

_BESIDE = {"evaluate": ("metrics", "plots")}
"""What a stage writes outside the folder that it publishes, as `Layout` calls it."""


def as_told(start: Rehearsal, data: Layout, *, raw: str) -> dict[str, Any]:
    """`published`: of this, other or no params and inputs; `start`: anew, resumes, not needed.

    raw: folder of the raw scans
    """
    if start.target is None or start.identity is None:  # ingest has looked at every byte
        return {"stage": "ingest", "published": "up to date", "start": "not needed", "writes": []}
    stage = start.identity.stage
    beside = [getattr(data, name) for name in _BESIDE.get(stage, ())]
    return {
        "stage": stage,
        "reads": _reads(start.identity, data, raw),
        "writes": [_shown(path, data) for path in (start.target, *beside)],
        "published": _published(start.target, start.identity),
        "start": "resumes" if start.resumes else "anew",
        "least_megabytes": None if start.least is None else round(start.least / 1e6, 3),
        "free_megabytes": round(free(start.target) / 1e6),
    }


def _reads(identity: Identity, data: Layout, raw: str) -> dict[str, str]:
    """Each input's place, with the beginning of its manifest's sha256."""
    if identity.stage == "ingest":
        return {"raw": f"{raw} ({len(identity.inputs)} inputs)"}
    return {
        name: f"{_shown(data.output(name), data)} ({digest[:16]})"
        for name, digest in identity.inputs.items()
        if name in MADE_BY
    }


def _published(target: Path, identity: Identity) -> str:
    try:
        same = Manifest.read(target).fingerprint == identity.fingerprint
    except InputError:
        return "nothing"
    except IntegrityError:
        return "damaged"
    return "up to date" if same else "of other params or inputs"


def _shown(path: Path, data: Layout) -> str:
    return str(path.relative_to(data.root)) if path.is_relative_to(data.root) else str(path)
