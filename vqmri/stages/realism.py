"""Are samples like real scans? Several measures, each beside real data and beside known fakes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Num
from scipy.ndimage import gaussian_filter

from vqmri.evaluation.anatomy import describe, histogram_distance, ks_distance
from vqmri.evaluation.distances import frechet_distance, mmd_squared_biased
from vqmri.evaluation.features import (
    EncoderSpace,
    FeatureSpace,
    Projection,
    RandomNet,
    WeightsFile,
)
from vqmri.evaluation.gates import Gate
from vqmri.evaluation.intervals import Groups, subsampled
from vqmri.evaluation.marginals import uniform
from vqmri.evaluation.neighbourhoods import neighbourhoods
from vqmri.evaluation.reconstruction import pairwise_ms_ssim
from vqmri.protocols import Metrics
from vqmri.scans.split import HELD_OUT, TRAIN
from vqmri.scans.volume import Record
from vqmri.stages.opened import Opened
from vqmri.terminal import follow

MOST, MOST_VALUES = 1000, 2**28
"""Items of a set, and voxels of all of them, at most; one set is in memory at a time.

Of very large volumes there are more voxels, for a share of fewer items would say nothing.
"""
TELLING = (
    Gate("frechet_ratio", most=2.0),
    Gate("mmd_ratio", most=2.0),
    Gate("coverage_ratio", least=0.8),
)
"""Ratios to what real data reach, and the bound that every known fake must miss by each of them."""
SAMPLES, REBUILT = "samples", "reconstructions of held-out scans"
HELD, TRAINING = "held-out scans", "training scans"
FAKES = ("uniform codes", "marginal codes", "mean training volume", "blurred training scans")
_NEIGHBOURS = 5
_DRAWS, _REPEATS = 20, 100
_PAIRS = 100
_BLUR = 2.0  # voxels, standard deviation
_LEAST = 2 * _NEIGHBOURS + 1
_LEAST_TO_FIT = 4  # scans for one axis, see Projection.fit

Volumes = Float[np.ndarray, "item channel *space"]
Features = Float[np.ndarray, "item dimension"]
Tested = Float[np.ndarray, "held dimension"]
Projected = Mapping[str, Mapping[str, Features]]
"""Suffix of a space → set → its features along that space's components."""


@dataclass(frozen=True)
class Seen:
    """What is kept of a set of volumes: features by the space's name, and plain statistics."""

    features: Mapping[str, Features]
    statistics: Mapping[str, Float[np.ndarray, " item"]]
    diversity: float
    histogram: float


@dataclass(frozen=True)
class Realism:
    """The figures of the samples, and the tables of the report.

    count: items of each set that are compared; 0 when there are too few to measure anything
    rows: set → measure → figure, measures of other spaces than the first with its name in brackets
    blind: measure → the fakes that it takes for real; such a measure is no gate
    statistics: (statistic, mean and deviation of real and of samples, distance, of training scans)
    """

    count: int
    metrics: Metrics
    rows: Mapping[str, Metrics]
    blind: Mapping[str, Sequence[str]]
    statistics: Sequence[tuple[str, ...]]


def realism(opened: Opened, weights: Path | None, seed: int) -> Realism:
    """Of as many samples as scans are held out, in every feature space.

    Each figure is the mean over draws of so many training scans or samples, where there are more.
    weights: of one more feature space, or None
    """
    random = np.random.default_rng([seed, 2])
    most = max(_LEAST, min(MOST, MOST_VALUES // int(np.prod(opened.volumes.shape))))
    held = _some(opened.records(HELD_OUT), most, random)
    fitting, train = halves(_some(opened.records(TRAIN), 2 * most, random), random)
    count = min(len(held), len(train), opened.samples.count)
    if count < _LEAST or len(fitting) < _LEAST_TO_FIT:  # a share of so few says nothing
        return Realism(0, {}, {}, {}, [])
    held = _some(held, count, random)
    spaces = _spaces(opened, weights)
    sets = _sets(opened, held, train, (count, most), random)
    real = opened.volumes.read(held)
    looked = {
        name: _look(make(), real, opened, spaces, seed)
        for name, make in follow(sets.items(), "realism", len(sets), "set", inner=True)
    }
    projected = _project(opened.volumes.read(fitting), looked, spaces)
    rows = compare(projected, count, seed)
    metrics = {_metric(name): value for name, value in rows[SAMPLES].items()}
    groups = (None, *(np.array([r.subject for r in records]) for records in (train, held)))
    metrics |= _intervals(projected, rows, groups, seed)
    metrics |= {"diversity_ms_ssim": looked[SAMPLES].diversity,
                "diversity_ms_ssim_of_real": looked[HELD].diversity}  # fmt: skip
    blind = _blind(rows)
    metrics |= {f"{measure}_fooled_by": float(len(fakes)) for measure, fakes in blind.items()}
    return Realism(count, metrics, rows, blind, _statistics(looked))


def _some(records: Sequence[Record], most: int, random: np.random.Generator) -> list[Record]:
    return [records[i] for i in sorted(random.permutation(len(records))[:most])]


def halves(
    records: Sequence[Record], random: np.random.Generator
) -> tuple[list[Record], list[Record]]:
    """Two halves of the subjects' scans: one to find axes by, the other to be measured by them."""
    subjects = sorted({record.subject for record in records})
    first = set(random.permutation(subjects)[: len(subjects) // 2].tolist())
    return (
        [record for record in records if record.subject in first],
        [record for record in records if record.subject not in first],
    )


def _spaces(opened: Opened, weights: Path | None) -> list[FeatureSpace]:
    spaces: list[FeatureSpace] = [
        RandomNet(len(opened.volumes.shape) - 1, opened.volumes.num_images),
        EncoderSpace(opened.generator.vqvae),
    ]
    return [*spaces, WeightsFile(weights)] if weights else spaces


def _sets(
    opened: Opened,
    held: Sequence[Record],
    train: Sequence[Record],
    counts: tuple[int, int],
    random: np.random.Generator,
) -> dict[str, Callable[[], Volumes]]:
    """How to make each set of volumes.

    counts: of held-out scans and fakes, and at most of samples
    """
    count, most = counts
    codes = opened.codes.read(opened.indices(TRAIN))
    drawn = sorted(random.permutation(opened.samples.count)[:most].tolist())
    sizes = opened.codes.num_embeddings
    even = [uniform(values, size, count, random) for values, size in zip(codes, sizes, strict=True)]
    marginal = [_marginal(values, count, random) for values in codes]
    blurred = [train[i] for i in random.permutation(len(train))[:count]]
    rows = {id(record): row for row, record in enumerate(opened.volumes.records)}
    own = [rows[id(record)] for record in held]
    return {
        HELD: lambda: opened.volumes.read(held),
        TRAINING: lambda: opened.volumes.read(train),
        REBUILT: lambda: np.concatenate([opened.decode(opened.codes.read([i])) for i in own]),
        SAMPLES: lambda: opened.decode_samples(drawn),
        FAKES[0]: lambda: opened.decode(even),
        FAKES[1]: lambda: opened.decode(marginal),
        FAKES[2]: lambda: np.repeat(opened.mean_volume()[None], count, axis=0),
        FAKES[3]: lambda: _blurred(opened.volumes.read(blurred), opened.volumes.num_classes > 0),
    }


def _marginal(
    values: Num[np.ndarray, "item *grid"], count: int, random: np.random.Generator
) -> np.ndarray:
    """Each position from some training item, whichever the others are from."""
    grid = values.shape[1:]
    chosen = random.integers(len(values), size=(count, *grid))
    return np.take_along_axis(values, chosen, axis=0)


def _blurred(volumes: Volumes, labelled: bool) -> Volumes:
    """Grey values blurred by a Gaussian of _BLUR voxels."""
    grey = volumes.shape[1] - labelled
    found = volumes.copy()
    sigma = [0.0, 0.0, *[_BLUR] * (volumes.ndim - 2)]
    found[:, :grey] = gaussian_filter(volumes[:, :grey], sigma)
    return found


def _look(
    volumes: Volumes,
    real: Float[np.ndarray, "held channel *space"],
    opened: Opened,
    spaces: Sequence[FeatureSpace],
    seed: int,
) -> Seen:
    classes = opened.volumes.num_classes
    grey = volumes.shape[1] - (classes > 0)
    return Seen(
        features={space.name: space(volumes) for space in spaces},
        statistics=describe(volumes, opened.volumes.spacing, classes),
        diversity=pairwise_ms_ssim(volumes[:, :grey], _PAIRS, seed),
        histogram=histogram_distance(volumes[:, :grey], real[:, :grey]),
    )


def _project(
    fitting: Volumes, looked: Mapping[str, Seen], spaces: Sequence[FeatureSpace]
) -> Projected:
    """Along the components of training scans that no set holds."""
    found = {}
    for number, space in enumerate(spaces):
        project = Projection.fit(space(fitting))
        found[f" [{space.name}]" if number else ""] = {
            name: project(seen.features[space.name]) for name, seen in looked.items()
        }
    return found


def compare(projected: Projected, count: int, seed: int) -> dict[str, Metrics]:
    """Every set but the held-out one, against it; training scans are what real data reach."""
    rows: dict[str, Metrics] = {}
    for suffix, sets in projected.items():
        found = {
            name: _mean_summary(features, sets[HELD], count, seed)
            for name, features in sets.items()
            if name != HELD
        }
        reached = found[TRAINING]
        for name, figures in found.items():
            ratios = {
                f"{measure}_ratio": figures[measure] / reached[measure]
                for measure in ("frechet", "mmd", "coverage")
                if reached[measure] > 0
            }
            row = rows.setdefault(name, {})
            row |= {measure + suffix: value for measure, value in (figures | ratios).items()}
    return rows


def _mean_summary(found: Features, test: Tested, count: int, seed: int) -> Metrics:
    """Means over draws of as many items as there are test items."""
    random = np.random.default_rng(seed)
    draws = _DRAWS if len(found) > count else 1
    each = [summary(found[random.permutation(len(found))[:count]], test) for _ in range(draws)]
    return {measure: float(np.mean([one[measure] for one in each])) for measure in each[0]}


def summary(found: Features, test: Tested) -> Metrics:
    """All measures of one set against another one of its size; `mmd` is the biased estimate.

    That one is above 0 for real data too, and so can stand below a fraction line.
    """
    near = neighbourhoods(test, found, _NEIGHBOURS)
    return {
        "frechet": frechet_distance(found, test),
        "mmd": mmd_squared_biased(found, test),
        **near._asdict(),
    }


def _intervals(
    projected: Projected, rows: Mapping[str, Metrics], groups: Groups, seed: int
) -> Metrics:
    """95 % of each ratio of the samples, by drawing halves of all three sets.

    groups: None for samples, each of which is its own; subjects of training and held-out scans
    """
    metrics = {}
    for suffix, found_of in projected.items():
        sets = [found_of[name] for name in (SAMPLES, TRAINING, HELD)]
        for measure in ("frechet", "mmd", "coverage"):
            found = subsampled(
                _ratio_of(measure), *sets, groups=groups, seed=seed, repeats=_REPEATS
            )
            value = rows[SAMPLES].get(f"{measure}_ratio{suffix}", np.nan)  # a mean over draws
            name = _metric(f"{measure}_ratio{suffix}")
            metrics[f"{name}_low"] = value + found.low - found.value
            metrics[f"{name}_high"] = value + found.high - found.value
    return metrics


def _ratio_of(measure: str) -> Callable[..., float]:
    def ratio(
        samples: Features, train: Float[np.ndarray, "train dimension"], test: Tested
    ) -> float:
        size = min(len(samples), len(train), len(test))
        found, reached = (summary(each[:size], test[:size])[measure] for each in (samples, train))
        return found / reached if reached > 0 else float("nan")

    return ratio


def _metric(name: str) -> str:
    """`frechet_ratio [encoder]` → frechet_ratio_encoder."""
    return name.replace(" [", "_").replace("]", "").replace("-", "_")


def _blind(rows: Mapping[str, Metrics]) -> dict[str, list[str]]:
    """Measures, by metric name, with the fakes that reach their bound."""
    found = {}
    for measure in rows[SAMPLES]:
        gate = next((g for g in TELLING if measure.split(" ")[0] == g.name), None)
        if gate is not None:
            fakes = [fake for fake in FAKES if gate.reached(rows[fake].get(measure, np.nan))]
            found[_metric(measure)] = fakes
    return found


def _statistics(looked: Mapping[str, Seen]) -> list[tuple[str, ...]]:
    """Of each statistic: both sides' mean and deviation, and how far the distributions differ."""
    real, train, drawn = (looked[name].statistics for name in (HELD, TRAINING, SAMPLES))
    rows = [
        (
            name.replace("_", " "),
            _spread(real[name]),
            _spread(drawn[name]),
            f"{ks_distance(drawn[name], real[name]):.2f}",
            f"{ks_distance(train[name], real[name]):.2f}",
        )
        for name in real
    ]
    histograms = [f"{looked[name].histogram:.4f}" for name in (SAMPLES, TRAINING)]
    return [*rows, ("histogram of intensities", "", "", *histograms)]


def _spread(values: Float[np.ndarray, " item"]) -> str:
    known = values[np.isfinite(values)]
    return f"{known.mean():.3g} ± {known.std():.2g}" if len(known) else "none"
