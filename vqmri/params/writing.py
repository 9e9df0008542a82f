"""A new params.yaml in place of the user's own, which is kept."""

from itertools import count
from pathlib import Path

from vqmri.outputs import replace_file
from vqmri.params import Params


def write_params(path: Path, text: str) -> Path | None:
    """Write params.yaml; what it was is kept beside it, and where is returned.

    It is at the first free name of params.yaml.old, .old2, .old3, …, so that no text is ever lost.
    """
    old = None
    if path.is_file():
        names = (path.with_name(f"{path.name}.old{n if n > 1 else ''}") for n in count(1))
        old = next(name for name in names if not name.exists())
        replace_file(old, path.read_bytes())
    replace_file(path, text.encode())
    Params.load(path)
    return old
