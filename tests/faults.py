"""What a test of faults tried, for the table that `python -m benchmarks.faults` makes of it."""

from collections.abc import Callable

Record = Callable[[str, object], None]
"""Pytest's `record_property`."""


def tell(record: Record, fault: str, tried: int, survived: int, outcome: str) -> None:
    """One row: so many faults of this kind, how many were survived or found, and how it ended."""
    record("fault", f"{fault} | {tried} | {survived} | {outcome}")
