"""Names that do not tell whose they are."""

import hashlib
import hmac
from collections.abc import Iterable
from dataclasses import replace

from vqmri.scans.volume import Candidate


def label(name: str, key: str) -> str:
    """Sixteen hex digits: the same for a name in all data sets of one key, and no way back."""
    return hmac.new(key.encode(), name.encode(), hashlib.sha256).hexdigest()[:16]


def renamed(candidates: Iterable[Candidate], key: str, *, people: bool) -> list[Candidate]:
    """Candidates whose names tell nobody. people: their subjects too; else those have labels."""
    return [
        replace(
            candidate,
            subject=label(candidate.subject, key) if people else candidate.subject,
            alias=f"scan-{label(candidate.source, key)}",
        )
        for candidate in candidates
    ]
