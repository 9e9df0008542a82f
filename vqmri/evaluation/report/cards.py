"""Two Markdown documents about a run: a card of the models, and a sheet of the synthetic scans."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from jinja2 import Environment, PackageLoader, StrictUndefined

from vqmri.evaluation.gates import Verdict

Metric = tuple[float, str, float | None, float | None]
"""Value, what it means, and the ends of its 95 % interval where it has one."""
Finding = tuple[str, str, str, str]
"""The test, what it found, what it is compared with, how to read that."""

NOT_STATED = "not stated in params"
MEASURED_BY = {
    "metrics": "evaluate",
    "gates": "evaluate",
    "privacy": "evaluate",
    "covariates": "ingest",
    "conditions": "train_prior",
    "asked": "sample",
}
"""Section of params.yaml that has each part of the documents measured or set."""

_SPECIAL = re.compile(r"[\\`*\[\]<>|#~&]|(?<!\w)_|_(?!\w)")


@dataclass(frozen=True)
class CardFacts:
    """What a run made and measured, in plain values; what has a default may not be known.

    name: of the model; version: of vqmri
    fingerprints: output → sha256 of its manifest
    source: kind of the source, as in params
    scans, subjects: side of the split (`train`, `held_out`) → how many
    shape, spacing: voxels and mm along each axis; pictures have no spacing
    covariates: name → range or counts
    licence: of the training scans, as the user gave it
    kinds: part of the model → what kind it is; parameters: part → how many
    levels: voxels per code along an axis, and size of the codebook; finest first
    conditions: covariates that the prior is conditioned on
    samples: how many; layout: of their folder; asked: covariate → what was asked for
    """

    name: str
    version: str
    fingerprints: Mapping[str, str]
    source: str
    scans: Mapping[str, int]
    subjects: Mapping[str, int]
    shape: Sequence[int]
    channels: Sequence[str]
    kinds: Mapping[str, str]
    parameters: Mapping[str, int]
    levels: Sequence[tuple[int, int]]
    bits_per_voxel: float
    temperature: float
    samples: int
    layout: str
    spacing: Sequence[float] = ()
    covariates: Mapping[str, str] = field(default_factory=dict)
    licence: str = NOT_STATED
    conditions: Sequence[str] = ()
    asked: Mapping[str, str] = field(default_factory=dict)
    metrics: Mapping[str, Metric] = field(default_factory=dict)
    gates: Sequence[Verdict] = ()
    findings: Sequence[Finding] = ()


def model_card(facts: CardFacts) -> str:
    """Markdown with the headings of Mitchell et al. 2019, arXiv:1810.03993."""
    return _rendered("model_card.md.jinja", facts)


def datasheet(facts: CardFacts) -> str:
    """Markdown about the synthetic scans, headed as Gebru et al. 2021, arXiv:1803.09010."""
    return _rendered("datasheet.md.jinja", facts)


def _rendered(template: str, facts: CardFacts) -> str:
    environment = Environment(
        loader=PackageLoader(__package__ or "", ""),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        finalize=_plain,
    )
    environment.filters |= {"number": _number, "measured": _measured}
    filled = environment.get_template(template).render(facts=facts, params=MEASURED_BY)
    return re.sub(r"\n{3,}", "\n\n", filled)


def _plain(value: object) -> str:
    """A value that Markdown shows as it is, on one line."""
    return _SPECIAL.sub(r"\\\g<0>", " ".join(str(value).split()))


def _number(value: float | None) -> str:
    if value is None or not math.isfinite(value):
        return "not defined"
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"


def _measured(metric: Metric) -> str:
    """The value with its interval, where there is one."""
    value, _, low, high = metric
    interval = "" if low is None or high is None else f" ({_number(low)} to {_number(high)})"
    return _number(value) + interval
