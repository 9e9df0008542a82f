"""What makes an output whole or absent."""

from vqmri.outputs.lock import hold
from vqmri.outputs.manifest import Identity, Manifest, digest, sha256_of, verify
from vqmri.outputs.publish import Work, is_current, publishing, replace_file, work_of
from vqmri.outputs.space import need_space

__all__ = [
    "Identity", "Manifest", "Work", "digest", "hold", "is_current", "need_space", "publishing",
    "replace_file", "sha256_of", "verify", "work_of",
]  # fmt: skip
