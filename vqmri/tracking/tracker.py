"""The tracker that remembers nothing."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any


class NullTracker:
    """For tests and scripts: a stage runs the same with it as with MLflow."""

    def params(self, values: Mapping[str, Any]) -> None:
        pass

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None:
        pass

    def resume(self, state: Path) -> None:
        pass

    def artifacts(self, folder: Path) -> None:
        pass

    def model(self, name: str, folders: Mapping[str, Path]) -> None:
        pass
