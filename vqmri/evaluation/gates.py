"""Which figures a model must reach, and whether it is worse than another one."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from math import nan

from vqmri.errors import InputError


class GateError(InputError):
    """The model does not pass its gates, or the champion is better."""


@dataclass(frozen=True)
class Gate:
    """A bound on one metric; exactly one of `least` and `most`, in the metric's own unit.

    It says the metric's direction too: with `least` higher is better, with `most` lower is.
    Raises ValueError for both bounds or none.
    """

    name: str
    least: float | None = None
    most: float | None = None

    def __post_init__(self) -> None:
        if (self.least is None) == (self.most is None):
            raise ValueError(f"the gate {self.name} needs one of least and most")

    @property
    def bound(self) -> str:
        """As in "≤ 2"."""
        return f"≤ {self.most:g}" if self.least is None else f"≥ {self.least:g}"

    def reached(self, value: float) -> bool:
        """Whether the value is on the good side of the bound or on it; NaN never is."""
        if self.least is not None:
            return value >= self.least
        assert self.most is not None
        return value <= self.most


@dataclass(frozen=True)
class Verdict:
    """What became of a gate.

    value: None when the metric was not measured; `nearest` then names those measured ones whose
        names are most like it
    fooled: known fakes reach the bound too (`NAME_fooled_by`), so the metric is no gate: it fails
    """

    name: str
    bound: str
    value: float | None
    passed: bool
    nearest: tuple[str, ...] = ()
    fooled: bool = False

    def __str__(self) -> str:
        found = "not measured" if self.value is None else f"{self.value:.6g}"
        if self.fooled:
            found += ", but known fakes reach it too, so it is no gate: take it out"
        hint = f" (is it {' or '.join(self.nearest)}?)" if self.nearest else ""
        return f"{self.name} {self.bound}: {found}{hint}, {'passes' if self.passed else 'fails'}"


def check(gates: Sequence[Gate], metrics: Mapping[str, float]) -> list[Verdict]:
    """One verdict per gate, in their order; a metric that was not measured does not pass."""
    return [_verdict(gate, metrics) for gate in gates]


def _verdict(gate: Gate, metrics: Mapping[str, float]) -> Verdict:
    value = metrics.get(gate.name)
    if value is None:
        nearest = tuple(get_close_matches(gate.name, metrics))
        return Verdict(gate.name, gate.bound, None, False, nearest)
    fooled = metrics.get(f"{gate.name}_fooled_by", 0) > 0
    return Verdict(gate.name, gate.bound, value, gate.reached(value) and not fooled, fooled=fooled)


def is_worse(
    gates: Sequence[Gate], challenger: Mapping[str, float], champion: Mapping[str, float]
) -> list[str]:
    """Names of the gated metrics in which the challenger is worse than the champion.

    Worse: on the bad side of the champion's 95 % interval, `NAME_low` to `NAME_high`, or of its
    value where it has no interval. A metric that the champion lacks does not count, one that only
    the challenger lacks does.
    """
    return [
        gate.name for gate in gates if gate.name in champion and _worse(gate, challenger, champion)
    ]


def _worse(gate: Gate, challenger: Mapping[str, float], champion: Mapping[str, float]) -> bool:
    name, value = gate.name, champion[gate.name]
    least = None if gate.least is None else champion.get(f"{name}_low", value)
    most = None if gate.most is None else champion.get(f"{name}_high", value)
    return not Gate(name, least, most).reached(challenger.get(name, nan))


def with_intervals(gates: Sequence[Gate], metrics: Mapping[str, float]) -> dict[str, float]:
    """The gated metrics and the ends of their intervals: all that decides."""
    kept = {f"{gate.name}{end}" for gate in gates for end in ("", "_low", "_high")}
    return {name: value for name, value in metrics.items() if name in kept}
