"""The command `vqmri`."""

from vqmri.cli import models as _models  # noqa: F401  (each adds its commands)
from vqmri.cli import project as _project  # noqa: F401
from vqmri.cli import stages as _stages  # noqa: F401
from vqmri.cli.group import main
from vqmri.cli.options import PRESETS

__all__ = ["PRESETS", "main"]
