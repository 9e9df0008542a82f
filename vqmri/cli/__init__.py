"""The command `vqmri`."""

from vqmri.cli import models, project, stages
from vqmri.cli.group import main
from vqmri.cli.options import PRESETS

__all__ = ["PRESETS", "main", "models", "project", "stages"]
