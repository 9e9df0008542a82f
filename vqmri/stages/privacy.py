"""Do the models give away whom they were trained on? Tests, each beside what chance alone gives.

What is found is what these tests find; other tests may find more.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from vqmri.evaluation.features import RandomNet
from vqmri.evaluation.membership import Membership, flagged, membership
from vqmri.evaluation.memorisation import (
    Share,
    correlations,
    distances,
    longest_shared_run,
    share_nearer,
    share_trained,
)
from vqmri.evaluation.overtrained import overtrain
from vqmri.evaluation.report.cards import Finding
from vqmri.prior import Prior
from vqmri.protocols import Metrics
from vqmri.scans.split import HELD_OUT
from vqmri.stages.known import MOST, Side, chunks, sides
from vqmri.stages.opened import Opened
from vqmri.training.model_folder import DESCRIPTION

CONTROL_SUBJECTS = 4
AUC_BOUND = 0.55
"""AUCs below it are not flagged, however sure they are."""

Chunks = Callable[[], Iterable[np.ndarray]]
"""Volumes (item, channel, *space), some at a time; every call begins anew."""
_RUNS = 1000  # items whose runs are looked for; each is compared with every training item
_REPEATS, _FEWER_REPEATS, _MANY = 1000, 200, 10**6


@dataclass(frozen=True)
class Privacy:
    """Figures, the table of the report, and who is nearest to each of the first samples.

    nearest: row of the volumes' table of the training scan most like a sample, and their r
    """

    metrics: Metrics
    findings: Sequence[Finding]
    nearest: Sequence[tuple[int, float]]


def privacy(opened: Opened, control_steps: int | None, seed: int) -> Privacy:
    """All tests of the published models and samples; the positive control if steps are given.

    Nothing for a data set without held-out scans.
    """
    if not opened.indices(HELD_OUT):
        return Privacy({}, [], [])
    train, held = sides(opened, seed)
    told = _told(opened.generator.prior, train, held, seed)
    count = min(opened.samples.count, MOST)
    metrics, findings = _membership(told, "prior", "")
    near = _near(
        opened, lambda: map(opened.decode_samples, chunks(opened, count)), train, held, seed
    )
    codes = opened.samples.read(range(count))
    metrics |= near.metrics
    runs, run_findings = _runs(opened, codes, train, held)
    findings = [*findings, *near.findings, *run_findings]
    if control_steps:
        more, control_findings = _positive_control(opened, train, held, control_steps, seed)
        metrics |= more
        findings += control_findings
    return Privacy(metrics | runs, findings, near.nearest)


def _told(prior: Prior, train: Side, held: Side, seed: int) -> Membership:
    subjects = (side.subjects[: side.scans] for side in (train, held))
    return membership(train.bits(prior), held.bits(prior), *subjects, seed=seed)


def _membership(found: Membership, whose: str, suffix: str) -> tuple[Metrics, list[Finding]]:
    told = flagged(found, AUC_BOUND)
    metrics = {
        f"mia{suffix}_auc": found.auc,
        f"mia{suffix}_auc_low": found.low,
        f"mia{suffix}_auc_high": found.high,
        f"mia{suffix}_control": found.control,
        f"mia{suffix}_control_low": found.control_low,
        f"mia{suffix}_control_high": found.control_high,
        f"mia{suffix}_p_value": found.p_value,
        f"mia{suffix}_true_positives": found.true_positives,
        f"mia{suffix}_flagged": float(told),
    }
    finding = (
        f"membership inference by the {whose}'s exact likelihood",
        f"AUC {found.auc:.3f} ({found.low:.3f} to {found.high:.3f}), p = {found.p_value:.3g}; "
        f"{100 * found.true_positives:.0f} % of members found at 10 % false alarms",
        "0.5 and 10 %"
        if np.isnan(found.control)
        else f"members against members: {found.control:.3f} "
        f"({found.control_low:.3f} to {found.control_high:.3f})",
        f"FLAGGED: training subjects can be told (AUC ≥ {AUC_BOUND} and p ≤ 0.05)"
        if told
        else "not flagged: this attack does not tell training subjects from others",
    )
    return metrics, [finding]


def _near(
    opened: Opened,
    samples: Chunks,
    train: Side,
    held: Side,
    seed: int,
    suffix: str = "",
    whose: str = "samples",
) -> Privacy:
    """Nearest neighbours by correlation, and in the features of a net with random weights.

    Scans and samples are read a chunk at a time.
    """
    grey = opened.volumes.num_images
    net = RandomNet(len(opened.volumes.shape) - 1, grey)
    known = [_grey(side.volumes, grey) for side in (train, held)]
    drawn = _grey(samples, grey)
    r = [correlations(drawn, scans) for scans in known]
    of_held = correlations(_grey(held.scan_volumes, grey), known[0]).max(axis=1)
    features = [np.concatenate([net(chunk) for chunk in chunks()]) for chunks in (drawn, *known)]
    in_net = [distances(features[0], of_known) for of_known in features[1:]]
    members = np.arange(len(train.rows) + len(held.rows)) < len(train.rows)
    subjects = [*train.subjects, *held.subjects]
    matrices = {
        "correlation": 1 - np.concatenate(r, axis=1),
        "features": np.concatenate(in_net, axis=1),
    }
    repeats = _REPEATS if len(features[0]) * len(subjects) < _MANY else _FEWER_REPEATS
    shares, wholes = (
        {
            name: share(matrix.astype(np.float64), members, subjects, seed=seed, repeats=repeats)
            for name, matrix in matrices.items()
            if share is share_trained or not suffix  # draws of few subjects miss most originals
        }
        for share in (share_nearer, share_trained)
    )
    best = r[0].max(axis=1)
    metrics = {
        f"nearest_correlation{suffix}": float(best.mean()),
        f"nearest_correlation{suffix}_most": float(best.max()),
        "nearest_correlation_of_held_out": float(of_held.mean()),
        "nearest_correlation_of_held_out_most": float(of_held.max()),
    }
    for what, found in (("nearer_to_training", shares), ("nearest_is_training", wholes)):
        metrics |= {f"{what}{suffix}_by_{name}": share.value for name, share in found.items()}
    findings = [_copies(whose, best, of_held), *_shares(whose, shares, wholes)]
    rows = r[0].argmax(axis=1)
    nearest = [(train.rows[i], float(value)) for i, value in zip(rows, best, strict=True)]
    return Privacy(metrics, findings, nearest)


def _copies(
    whose: str, best: Float[np.ndarray, " sample"], of_held: Float[np.ndarray, " held"]
) -> Finding:
    return (
        f"r of the {whose} with the nearest training scan",
        f"mean {best.mean():.3f}, most {best.max():.3f}",
        f"held-out scans: mean {of_held.mean():.3f}, most {of_held.max():.3f}",
        f"above all held-out scans, as by chance in {_chance(best, of_held)}; a copy has nearly 1"
        if best.max() > of_held.max()
        else "no sample is nearer to a training scan than real people are to one another",
    )


def _chance(own: Sized, of_held: Sized) -> str:
    """How often the greatest of both is a sample's where the two do not differ."""
    return f"{100 * len(own) / (len(own) + len(of_held)):.0f} %"


def _shares(whose: str, nearer: Mapping[str, Share], trained: Mapping[str, Share]) -> list[Finding]:
    as_many = f"{whose} nearer to training than to as many held-out subjects"
    return [
        *(_share(f"{as_many}, by {name}", share) for name, share in nearer.items()),
        *(
            _share(f"{whose} whose nearest known scan is a training one, by {name}", share)
            for name, share in trained.items()
        ),
    ]


def _grey(volumes: Chunks, grey: int) -> Chunks:
    return lambda: (chunk[:, :grey] for chunk in volumes())


def _share(what: str, share: Share) -> Finding:
    return (
        f"share of {what}",
        f"{share.value:.2f} ({share.low:.2f} to {share.high:.2f})",
        f"by chance {share.chance:.2f} ({share.chance_low:.2f} to {share.chance_high:.2f})",
        "ABOVE what chance gives"
        if share.value > share.chance_high
        else "within what chance gives, or below it",
    )


def _runs(
    opened: Opened, codes: Sequence[np.ndarray], train: Side, held: Side
) -> tuple[Metrics, list[Finding]]:
    """Longest runs of codes that a sample has in common with a training scan; no real gains."""
    metrics: Metrics = {}
    findings: list[Finding] = []
    for number, code_map in enumerate(opened.codes.maps):
        if not code_map.num_embeddings:
            continue
        own, of_held = (
            longest_shared_run(maps[number][:most], train.maps[number])
            for maps, most in ((codes, _RUNS), (held.maps, min(_RUNS, held.scans)))
        )
        positions = int(np.prod(code_map.grid))
        metrics[f"longest_run_{code_map.name}"] = float(own.max())
        metrics[f"longest_run_{code_map.name}_of_held_out"] = float(of_held.max())
        findings.append(
            (
                f"longest run of codes shared with a training scan, {code_map.name}",
                f"{own.max()} of {positions} (median {np.median(own):.0f})",
                f"held-out scans: {of_held.max()} (median {np.median(of_held):.0f})",
                f"longer than any that real people share, as by chance in {_chance(own, of_held)}"
                if own.max() > of_held.max()
                else "no longer than what real people share",
            )
        )
    return metrics, findings


def _positive_control(
    opened: Opened, train: Side, held: Side, steps: int, seed: int
) -> tuple[Metrics, list[Finding]]:
    """Membership inference on a prior that knows four training scans by heart, and the neighbours
    of copies of these scans: what the tests must find.
    """
    random = np.random.default_rng([seed, 4])
    subjects = random.permutation(sorted(set(train.subjects)))[:CONTROL_SUBJECTS]
    own = Side(opened, [train.rows[train.subjects.index(subject)] for subject in subjects])
    others = Side(opened, held.rows[: held.scans])
    description = json.loads((opened.folders["prior"] / DESCRIPTION).read_text(encoding="utf-8"))
    rows = own.covariates(opened.generator.prior)
    prior = overtrain(description["arguments"], own.tensors, rows, steps=steps, seed=seed)
    told = _told(prior, own, others, seed)
    whose = f"prior overtrained on {own.scans} scans"
    metrics, findings = _membership(told, whose, "_of_overtrained")
    copies = opened.decode(own.maps)
    whose = f"copies (codes, decoded) of {own.scans} training scans"
    near = _near(opened, lambda: [copies], train, held, seed, "_of_copies", whose)
    metrics |= {name: value for name, value in near.metrics.items() if "of_copies" in name}
    return metrics, [*findings, *near.findings]
