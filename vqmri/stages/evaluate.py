"""everything → report: held-out figures, plots for DVC, and one HTML file."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vqmri.evaluation.gates import Gate, check
from vqmri.evaluation.report.cards import datasheet, model_card
from vqmri.layout import MADE_BY, Layout
from vqmri.outputs import Identity, Manifest, digest, publishing, replace_file, sha256_of
from vqmri.outputs.rehearsal import begins
from vqmri.params import Evaluate, Params
from vqmri.protocols import Map, Metrics, Tracker
from vqmri.scans.split import HELD_OUT
from vqmri.stages import figures
from vqmri.stages.cards import card_facts
from vqmri.stages.data_section import data_sections
from vqmri.stages.findings import Found, Shown, Studied, Used, read_study, read_use
from vqmri.stages.opened import Opened, open_outputs
from vqmri.stages.privacy import privacy
from vqmri.stages.realism import realism
from vqmri.stages.report import write_report
from vqmri.stages.use import use_metrics
from vqmri.terminal import progress
from vqmri.tracking.tracker import NullTracker
from vqmri.training.model_folder import HISTORY

FORMAT_VERSION = 7
METRICS = "metrics.json"
_INPUTS = [name for name in MADE_BY if name != "report"]


def evaluate(
    params: Params, data: Layout, *, tracker: Tracker | None = None, each: Map = map
) -> Metrics:
    """Publish data/report, and beside it data/metrics.json and data/plots/ for DVC."""
    tracker = tracker or NullTracker()
    folders = {name: data.need(name) for name in _INPUTS}
    identity = Identity(
        "evaluate",
        FORMAT_VERSION,
        {
            "seed": params.seed,
            "evaluate": params.evaluate.model_dump(mode="json"),
            "weights": _bytes_of(data.root, params.evaluate.weights),
        },
        {name: digest(folder) for name, folder in folders.items()},
    )
    histories = {name: _history(folders[name]) for name in ("vqvae", "prior")}
    with publishing(data.output("report"), data.work, identity) as work:
        opened = open_outputs(folders)
        studied = read_study(folders["study"], identity.inputs)
        used = read_use(folders["use"], identity.inputs)
        begins()
        sections = data_sections(folders["volumes"], opened.volumes)
        found, reconstructions = _measure(params, data.root, opened, histories, studied, used)
        shown = _shown(params.evaluate, opened, reconstructions, found)
        write_report(work.out, sections, found, shown, identity.inputs)
        facts = card_facts(params, opened, found, identity.inputs)
        replace_file(work.out / "MODEL_CARD.md", model_card(facts).encode())
        replace_file(work.out / "DATASHEET.md", datasheet(facts).encode())
        written = (json.dumps(found.metrics, indent=1, sort_keys=True) + "\n").encode()
        replace_file(work.out / METRICS, written)
        for name, history in histories.items():
            replace_file(data.plots / f"{name}.csv", _csv(history))
        replace_file(data.metrics, written)
    tracker.artifacts(data.output("report"))
    return found.metrics


def _bytes_of(root: Path, weights: str | None) -> str | None:
    """sha256 of the file `evaluate.weights`; None without one, and `realism` says what is wrong."""
    try:
        return sha256_of(root / weights) if weights else None
    except OSError:
        return None


def _measure(
    params: Params,
    root: Path,
    opened: Opened,
    histories: Mapping[str, Sequence[Metrics]],
    studied: Studied,
    used: Used,
) -> tuple[Found, np.ndarray]:
    """All figures, and the reconstructions of the held-out scans."""
    settings, seed = params.evaluate, params.seed
    weights = root / settings.weights if settings.weights else None
    with progress("evaluate", 5, "part") as bar:
        reconstructions = opened.decode(opened.codes.read(opened.indices(HELD_OUT)))
        bar.advance()
        metrics = figures.reconstruction(opened, reconstructions)
        metrics |= figures.codebook(opened) | figures.prior(opened) | figures.variety(opened)
        bar.advance()
        ventricles, points = figures.ventricles(opened)
        real = realism(opened, weights, seed)
        bar.advance()
        told = privacy(opened, settings.control_steps, seed)
        bar.advance()
        for row in used.rows:
            metrics |= use_metrics(row)
        metrics |= ventricles | real.metrics | told.metrics
        metrics = {name: value for name, value in metrics.items() if np.isfinite(value)}
        gates = [Gate(name, bound.least, bound.most) for name, bound in settings.gates.items()]
        verdicts = check(gates, metrics)
        bar.advance()
    return Found(metrics, histories, studied, used, real, told, points, verdicts), reconstructions


def _shown(settings: Evaluate, opened: Opened, reconstructions: np.ndarray, found: Found) -> Shown:
    held = opened.records(HELD_OUT)[: settings.montages]
    gallery = range(min(settings.gallery, opened.samples.count))
    near = found.privacy.nearest[: len(gallery)]
    records = [opened.volumes.records[row] for row, _ in near]
    neighbours = opened.viewable(opened.volumes.read(records))
    return Shown(
        labels=[record.subject for record in held],
        volumes=opened.viewable(opened.volumes.read(held)),
        reconstructions=opened.viewable(reconstructions[: len(held)]),
        samples=opened.viewable(opened.decode_samples(gallery)),
        neighbours=[(scan, r) for scan, (_, r) in zip(neighbours, near, strict=True)],
        spacing=opened.volumes.spacing,
    )


def _history(folder: Path) -> list[dict[str, float]]:
    Manifest.read(folder).check(folder, [HISTORY])
    return json.loads((folder / HISTORY).read_text(encoding="utf-8"))


def _csv(history: list[dict[str, Any]]) -> bytes:
    names = list(dict.fromkeys(name for row in history for name in row))
    text = io.StringIO()
    rows = csv.DictWriter(text, names, lineterminator="\n")
    rows.writeheader()
    rows.writerows(history)
    return text.getvalue().encode()
