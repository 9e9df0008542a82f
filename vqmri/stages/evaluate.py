"""everything → report: held-out figures, plots for DVC, and one HTML file."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from vqmri.codes import CodeStore
from vqmri.errors import IntegrityError
from vqmri.evaluation.codebook import perplexity, usage
from vqmri.evaluation.likelihood import held_out_likelihood, inside
from vqmri.evaluation.reconstruction import psnr_in_view, ssim_in_view
from vqmri.layout import MADE_BY, Layout
from vqmri.outputs import Identity, Manifest, publishing, replace_file
from vqmri.outputs.manifest import digest
from vqmri.params import Params
from vqmri.protocols import Map, Metrics, Tracker
from vqmri.scans.split import HELD_OUT, TRAIN
from vqmri.scans.store import VolumeStore
from vqmri.scans.volume import Record, code_box
from vqmri.stages.report import Shown, write_report
from vqmri.tracking.tracker import NullTracker
from vqmri.training.generator import Generator
from vqmri.training.model_folder import HISTORY

FORMAT_VERSION = 1
_BATCH = 8
_INPUTS = [name for name in MADE_BY if name != "report"]


@dataclass(frozen=True)
class Opened:
    """Every published output that is evaluated."""

    volumes: VolumeStore
    codes: CodeStore
    samples: CodeStore
    generator: Generator

    def indices(self, split: str) -> list[int]:
        """Rows of one side of the split, the same in volumes and codes."""
        return [i for i, record in enumerate(self.volumes.records) if record.split == split]

    def records(self, split: str) -> list[Record]:
        return self.volumes.of_split(split)

    def decode(self, codes: Sequence[np.ndarray]) -> np.ndarray:
        """Volumes (item, channel, *space) of stored codes, in batches."""
        levels = [torch.from_numpy(level.astype(np.int64)) for level in codes]
        batches = zip(*(level.split(_BATCH) for level in levels), strict=True)
        return np.concatenate([self.generator.decode(batch) for batch in batches])


def evaluate(
    params: Params, data: Layout, *, tracker: Tracker | None = None, each: Map = map
) -> Metrics:
    """Publish data/report, and beside it data/metrics.json and data/plots/ for DVC."""
    tracker = tracker or NullTracker()
    folders = {name: data.need(name) for name in _INPUTS}
    identity = Identity(
        "evaluate",
        FORMAT_VERSION,
        {"evaluate": params.evaluate.model_dump(mode="json")},
        {name: digest(folder) for name, folder in folders.items()},
    )
    histories = {name: _history(folders[name]) for name in ("vqvae", "prior")}
    with publishing(data.output("report"), data.work, identity) as work:
        opened = _open(folders)
        with tqdm(total=4, desc="evaluate", unit="part") as bar:
            reconstructions = opened.decode(opened.codes.read(opened.indices(HELD_OUT)))
            bar.update()
            metrics = _reconstruction(opened, reconstructions)
            bar.update()
            metrics |= _codes(opened) | _prior(opened) | _samples(opened)
            bar.update()
            held = opened.records(HELD_OUT)[: params.evaluate.montages]
            shown = Shown(
                labels=[f"sub-{record.subject}" for record in held],
                volumes=opened.volumes.read(held),
                reconstructions=reconstructions[: len(held)],
                samples=opened.decode(
                    opened.samples.read(range(min(params.evaluate.gallery, opened.samples.count)))
                ),
            )
            metrics = {name: value for name, value in metrics.items() if np.isfinite(value)}
            write_report(work.out, metrics, histories, shown, identity.inputs)
            bar.update()
        figures = (json.dumps(metrics, indent=1, sort_keys=True) + "\n").encode()
        replace_file(work.out / "metrics.json", figures)
        for name, history in histories.items():
            replace_file(data.plots / f"{name}.csv", _csv(history))
        replace_file(data.metrics, figures)
    return metrics


def _open(folders: dict[str, Path]) -> Opened:
    """Open all outputs; IntegrityError when they were not made of one another."""
    codes = CodeStore(folders["codes"])
    samples = CodeStore(folders["samples"])
    generator = Generator(folders["vqvae"], folders["prior"])
    vqvae, prior = generator.about, generator.prior_about
    volumes, weights = digest(folders["volumes"]), vqvae["weights"]
    for name, of, found, expected in (
        ("vqvae", "volumes", vqvae["volumes"], volumes),
        ("codes", "volumes", codes.attributes["volumes"], volumes),
        ("codes", "vqvae", codes.attributes["vqvae_weights"], weights),
        ("prior", "codes", prior["codes"], digest(folders["codes"])),
        ("samples", "vqvae", samples.attributes["vqvae_weights"], weights),
        ("samples", "prior", samples.attributes["prior_weights"], prior["weights"]),
    ):
        if found != expected:
            raise IntegrityError(
                f"{folders[name]} was made with other {of} ({found[:16]}) than those in "
                f"{folders[of]} ({expected[:16]}). Run `dvc repro`."
            )
    return Opened(VolumeStore(folders["volumes"]), codes, samples, generator)


def _reconstruction(opened: Opened, reconstructions: np.ndarray) -> Metrics:
    """Held-out PSNR and SSIM in each field of view, and those of the mean training volume."""
    held = opened.records(HELD_OUT)
    boxes = [record.box for record in held]
    volumes = opened.volumes.read(held)
    mean = np.broadcast_to(_mean_volume(opened), volumes.shape)
    return {
        "psnr_db": float(np.mean(psnr_in_view(reconstructions, volumes, boxes))),
        "ssim": _mean(ssim_in_view(reconstructions, volumes, boxes)),
        "psnr_db_of_mean_training_volume": float(np.mean(psnr_in_view(mean, volumes, boxes))),
        "ssim_of_mean_training_volume": _mean(ssim_in_view(mean, volumes, boxes)),
    }


def _mean(values: Sequence[float]) -> float:
    """Mean of the numbers among the values; NaN when there is none."""
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")


def _mean_volume(opened: Opened) -> np.ndarray:
    total = np.zeros(opened.volumes.shape)
    records = opened.records(TRAIN)
    for record in records:
        total += opened.volumes.read([record])[0]
    return (total / len(records)).astype(np.float32)


def _codes(opened: Opened) -> Metrics:
    """Rate, and the use of each codebook on all held-out codes."""
    held = opened.codes.read(opened.indices(HELD_OUT))
    voxels = int(np.prod(opened.volumes.shape[1:]))
    metrics: Metrics = {"bits_per_voxel": 0.0}
    for level, (codes, number) in enumerate(zip(held, opened.codes.num_embeddings, strict=True)):
        counts = np.bincount(codes.ravel(), minlength=number)
        metrics["bits_per_voxel"] += float(np.log2(number)) * codes[0].size / voxels
        metrics[f"usage_level_{level}"] = usage(counts)
        metrics[f"perplexity_level_{level}"] = perplexity(counts)
    return metrics


def _prior(opened: Opened) -> Metrics:
    """Held-out bits per code inside the fields of view, beside the marginal entropy there."""
    boxes = [record.box for record in opened.records(HELD_OUT)]
    masks = [
        inside([code_box(box, factor) for box in boxes], grid)
        for factor, grid in zip(
            opened.codes.attributes["downsamplings"], opened.codes.grids, strict=True
        )
    ]
    codes = [
        torch.from_numpy(level.astype(np.int64))
        for level in opened.codes.read(opened.indices(HELD_OUT))
    ]
    found = held_out_likelihood(opened.generator.prior, codes, masks)
    return {
        "prior_bits_per_code": found.bits_per_code,
        "marginal_bits_per_code": found.marginal_bits_per_code,
        "prior_saving": 1 - found.bits_per_code / found.marginal_bits_per_code,
    }


def _samples(opened: Opened) -> Metrics:
    drawn = opened.samples.read(range(opened.samples.count))
    rows = {
        tuple(int(c) for level in drawn for c in level[i].ravel()) for i in range(len(drawn[0]))
    }
    return {"samples": float(len(drawn[0])), "unique_samples": float(len(rows))}


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
