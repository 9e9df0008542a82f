"""What a stage asks of the world around it, be that Prefect, MLflow or nothing."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

Item = TypeVar("Item")
Result = TypeVar("Result")

Metrics = dict[str, float]
"""Flat names to numbers, the same names in metrics files and in MLflow."""


@runtime_checkable
class Tracker(Protocol):
    """Takes what a stage wants remembered about a run."""

    def params(self, values: Mapping[str, Any]) -> None: ...

    def metrics(self, values: Mapping[str, float], step: int = 0) -> None: ...

    def resume(self, state: Path) -> None:
        """Go on with the run that was under way when the work with this state was left, if any."""
        ...

    def artifacts(self, folder: Path) -> None:
        """Keep a copy of the files of a published folder."""
        ...

    def model(self, name: str, folders: Mapping[str, Path]) -> None:
        """Register the published model folders as a new version of the model called `name`."""
        ...


@runtime_checkable
class Map(Protocol):
    """Applies a top-level function to items of plain values; the unit of work is one shard."""

    def __call__(
        self, function: Callable[[Item], Result], items: Iterable[Item], /
    ) -> Iterable[Result]: ...
