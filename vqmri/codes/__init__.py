"""Integer codes at rest."""

from vqmri.codes.store import CodeStore, CodeWriter

__all__ = ["CodeStore", "CodeWriter"]
