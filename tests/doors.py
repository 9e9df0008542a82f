"""What tests of the doors do with a checkout: run a command, look at what it published."""

import subprocess
from pathlib import Path

from vqmri.layout import MADE_BY


def run(checkout: Path, shell: dict[str, str], *command: str) -> str:
    """What the command said; it must end well."""
    done = subprocess.run(
        command, cwd=checkout, env=shell, capture_output=True, text=True, check=False, timeout=600
    )
    assert done.returncode == 0, (done.stdout + done.stderr)[-5000:]
    return done.stdout + done.stderr


def bytes_of(checkout: Path) -> dict[str, bytes]:
    """The manifest of every output, which has the sha256 of each file, and the metrics."""
    found = {name: (checkout / f"data/{name}/MANIFEST.json").read_bytes() for name in MADE_BY}
    return found | {"metrics": (checkout / "data/metrics.json").read_bytes()}
