"""What is known of a subject, as a condition of the prior."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from vqmri.errors import InputError, ParamsError

Rows = Float[Tensor, "batch covariate"]
"""One number per covariate, NaN where it is missing: the index of a category, or a standardised
value."""


@dataclass(frozen=True)
class Categorical:
    """One of `values`."""

    name: str
    values: tuple[str, ...]

    def is_known(self, value: Any) -> bool:
        """Whether there is a value, and one that was trained on."""
        return value is not None and str(value) in self.values

    def number(self, value: Any, *, extrapolate: bool) -> float:
        """Index of a value; ParamsError when it is none of those trained on."""
        if str(value) not in self.values:
            raise ParamsError(
                f"sample.covariates.{self.name} = {value!r}: the prior was trained on "
                f"{', '.join(self.values)}. Choose one of these."
            )
        return float(self.values.index(str(value)))


@dataclass(frozen=True)
class Continuous:
    """A real number; `mean` and `std` are of the training subjects."""

    name: str
    minimum: float
    maximum: float
    mean: float
    std: float

    def is_known(self, value: Any) -> bool:
        """Whether there is a value, and a number as those trained on."""
        return isinstance(value, float | int) and math.isfinite(value)

    def number(self, value: Any, *, extrapolate: bool) -> float:
        """Standardised value; ParamsError outside the training range unless `extrapolate`."""
        try:
            found = float(value)
        except (TypeError, ValueError):
            found = math.nan
        if not math.isfinite(found):
            raise ParamsError(
                f"sample.covariates.{self.name} = {value!r}: a number is needed. Give one."
            )
        if not extrapolate and not self.minimum <= found <= self.maximum:
            raise ParamsError(
                f"sample.covariates.{self.name} = {value!r}: the prior was trained on "
                f"{self.minimum:g} to {self.maximum:g}. Stay within, or set "
                "`sample.extrapolate: true` (`--extrapolate`)."
            )
        return (found - self.mean) / self.std


Covariate = Categorical | Continuous


def fit_covariates(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[Covariate]:
    """Kinds and ranges of some covariates, from the training subjects; all numbers: continuous.

    Raises InputError when a name is unknown to every subject, or has only one value.
    """
    return [_fit(name, [row[name] for row in rows if row.get(name) is not None]) for name in names]


def _fit(name: str, values: Sequence[Any]) -> Covariate:
    if len(set(values)) < 2:
        found = f"is {values[0]!r} for all" if values else "is known for none"
        raise InputError(
            f"train_prior.conditions: {name!r} {found} of the training subjects, so nothing can be "
            "conditioned on it. Take it out, or name it in ingest.source and ingest again."
        )
    if all(isinstance(value, float | int) for value in values):
        numbers = torch.tensor(values, dtype=torch.float64)
        std, mean = torch.std_mean(numbers, correction=0)
        return Continuous(name, float(numbers.min()), float(numbers.max()), float(mean), float(std))
    if any(isinstance(value, float | int) for value in values):
        texts = sorted({value for value in values if isinstance(value, str)})
        raise InputError(
            f"train_prior.conditions: {name!r} has numbers and texts ({', '.join(texts[:5])}). "
            "Make it all numbers, or all texts, in the table."
        )
    return Categorical(name, tuple(sorted(set(values))))


def to_json(covariates: Sequence[Covariate]) -> list[dict[str, Any]]:
    """For `model.json`; `from_json` undoes it."""
    return [asdict(covariate) for covariate in covariates]


def from_json(items: Sequence[Mapping[str, Any]]) -> list[Covariate]:
    """Undo `to_json`."""
    return [
        Categorical(item["name"], tuple(item["values"])) if "values" in item else Continuous(**item)
        for item in items
    ]


def encode(
    covariates: Sequence[Covariate],
    rows: Sequence[Mapping[str, Any]],
    *,
    extrapolate: bool = False,
) -> Rows:
    """Numbers of some subjects; what a row does not name, or names as None, is missing.

    Raises ParamsError for a value that `number` refuses, and for a name that is no covariate.
    """
    names = [covariate.name for covariate in covariates]
    for unknown in (name for row in rows for name in row if name not in names):
        allowed = f"conditioned on {', '.join(names)}" if names else "trained without conditions"
        raise ParamsError(
            f"sample.covariates.{unknown}: no such covariate; the prior is {allowed}. "
            "Take it out, or choose from these."
        )
    numbers = [
        [
            math.nan
            if row.get(covariate.name) is None
            else covariate.number(row[covariate.name], extrapolate=extrapolate)
            for covariate in covariates
        ]
        for row in rows
    ]
    return torch.tensor(numbers, dtype=torch.float32).reshape(len(rows), len(covariates))


def known_rows(covariates: Sequence[Covariate], rows: Sequence[Mapping[str, Any]]) -> Rows:
    """Numbers of real subjects, who may have more covariates and categories never trained on."""
    return encode(
        covariates,
        [{c.name: row[c.name] for c in covariates if c.is_known(row.get(c.name))} for row in rows],
        extrapolate=True,
    )


class CovariateEmbedding(nn.Module):
    """Sum of one vector per covariate: a category's, a small net's over a value, or "missing"."""

    def __init__(self, covariates: Sequence[Covariate], channels: int) -> None:
        super().__init__()
        self.missing = nn.Parameter(torch.randn(len(covariates), channels))
        self.embeddings = nn.ModuleList(
            nn.Embedding(len(covariate.values), channels)
            if isinstance(covariate, Categorical)
            else nn.Sequential(nn.Linear(1, channels), nn.SiLU(), nn.Linear(channels, channels))
            for covariate in covariates
        )

    def forward(self, rows: Rows) -> Float[Tensor, "batch feature"]:
        vectors = []
        for index, embedding in enumerate(self.embeddings):
            known = ~rows[:, index].isnan()
            value = rows[:, index].nan_to_num().to(self.missing.dtype)
            inputs = value.long() if isinstance(embedding, nn.Embedding) else value.unsqueeze(1)
            vector = embedding(inputs)
            vectors.append(torch.where(known.unsqueeze(1), vector, self.missing[index]))
        return torch.stack(vectors).sum(dim=0)


def hide(rows: Rows, share: float) -> Rows:
    """Forget all of a row with probability `share`, and what is left one by one with the same.

    Training so teaches the prior what it is to know nothing (Ho & Salimans 2022, classifier-free
    guidance) or only some covariates.
    """
    whole = torch.rand(rows.shape[0], 1, device=rows.device) < share
    single = torch.rand(rows.shape, device=rows.device) < (share if rows.shape[1] > 1 else 0.0)
    return rows.masked_fill(whole | single, math.nan)
