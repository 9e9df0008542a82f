"""Integer codes at rest."""

from vqmri.codes.schema import CodeMap, code_maps
from vqmri.codes.store import CodeStore, CodeWriter

__all__ = ["CodeMap", "CodeStore", "CodeWriter", "code_maps"]
