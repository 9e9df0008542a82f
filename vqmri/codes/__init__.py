"""Integer codes at rest."""

from vqmri.codes.schema import CodeMap, bits_per_position, code_maps
from vqmri.codes.store import CodeStore, CodeWriter, code_tensors

__all__ = ["CodeMap", "CodeStore", "CodeWriter", "bits_per_position", "code_maps", "code_tensors"]
