"""everything → report: held-out figures, plots for DVC, and one HTML file."""

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from vqmri.layout import MADE_BY, Layout
from vqmri.outputs import Identity, Manifest, publishing, replace_file
from vqmri.outputs.manifest import digest
from vqmri.params import Params
from vqmri.protocols import Map, Metrics, Tracker
from vqmri.scans.split import HELD_OUT
from vqmri.stages import figures
from vqmri.stages.data_section import data_sections
from vqmri.stages.report import Shown, read_study, write_report
from vqmri.tracking.tracker import NullTracker
from vqmri.training.model_folder import HISTORY

FORMAT_VERSION = 4
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
        {"seed": params.seed, "evaluate": params.evaluate.model_dump(mode="json")},
        {name: digest(folder) for name, folder in folders.items()},
    )
    histories = {name: _history(folders[name]) for name in ("vqvae", "prior")}
    with publishing(data.output("report"), data.work, identity) as work:
        opened = figures.open_outputs(folders)
        studied = read_study(folders["study"], identity.inputs)
        with tqdm(total=5, desc="evaluate", unit="part") as bar:
            sections = data_sections(folders["volumes"], opened.volumes)
            bar.update()
            reconstructions = opened.decode(opened.codes.read(opened.indices(HELD_OUT)))
            bar.update()
            metrics = figures.reconstruction(opened, reconstructions)
            bar.update()
            metrics |= figures.codebook(opened) | figures.prior(opened) | figures.variety(opened)
            if params.evaluate.classifier:
                metrics |= figures.classification(
                    opened, reconstructions, params.evaluate.classifier, params.seed
                )
            bar.update()
            gallery = range(min(params.evaluate.gallery, opened.samples.count))
            held = opened.records(HELD_OUT)[: params.evaluate.montages]
            shown = Shown(
                labels=[record.subject for record in held],
                volumes=opened.viewable(opened.volumes.read(held)),
                reconstructions=opened.viewable(reconstructions[: len(held)]),
                samples=opened.viewable(opened.decode(opened.samples.read(gallery))),
            )
            metrics = {name: value for name, value in metrics.items() if np.isfinite(value)}
            write_report(work.out, sections, metrics, histories, shown, studied, identity.inputs)
            bar.update()
        written = (json.dumps(metrics, indent=1, sort_keys=True) + "\n").encode()
        replace_file(work.out / "metrics.json", written)
        for name, history in histories.items():
            replace_file(data.plots / f"{name}.csv", _csv(history))
        replace_file(data.metrics, written)
    return metrics


def _history(folder: Path) -> list[dict[str, float]]:
    Manifest.read(folder).check(folder, [HISTORY])
    history: list[dict[str, float]] = json.loads((folder / HISTORY).read_text(encoding="utf-8"))
    return history


def _csv(history: list[dict[str, Any]]) -> bytes:
    names = list(dict.fromkeys(name for row in history for name in row))
    text = io.StringIO()
    rows = csv.DictWriter(text, names, lineterminator="\n")
    rows.writeheader()
    rows.writerows(history)
    return text.getvalue().encode()
