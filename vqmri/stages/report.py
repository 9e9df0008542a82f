"""The sections of the report."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from vqmri.errors import IntegrityError
from vqmri.evaluation.montage import Plane, curves, montage, strip
from vqmri.evaluation.report import Section, render
from vqmri.outputs import Manifest, replace_file
from vqmri.protocols import Metrics
from vqmri.stages.study import DECODED, TABLE

REPORT = "report.html"
_GALLERY_COLUMNS = 4
_PICTURE_COLUMNS = 10
_PLANES = "Sagittal, coronal and axial middle slices"
_MEANINGS = {
    "psnr_db": "dB, inside each scan's field of view, mean over held-out volumes; higher is better",
    "ssim": "structural similarity there, at most 1; higher is better",
    "psnr_db_of_mean_training_volume": "the same for the mean training volume: the floor",
    "ssim_of_mean_training_volume": "the same for the mean training volume",
    "psnr_db_foreground": "dB, without the air: voxels whose intensity is above 0.05",
    "psnr_db_foreground_of_mean_training_volume": "the same for the mean training volume",
    "bits_per_voxel": "what the codes cost, without the prior's help",
    "prior_bits_per_code": "held-out codes under the prior, padding left out; lower is better",
    "marginal_bits_per_code": "the same without any context: entropy of the codes' histogram",
    "prior_saving": "share of those bits that the prior saves",
    "label_accuracy": "share of the voxels whose label is reconstructed right",
    "label_dice": "Dice score of the labels but the background, at most 1; higher is better",
    "classifier_accuracy": "of a classifier trained on all real training volumes, on held-out ones",
    "reconstruction_accuracy": "the same classifier on their reconstructions: the decoder's part",
    "conditional_accuracy": "the same classifier on samples: the share that shows what was asked",
    "classification_accuracy_score": "trained on the samples alone, on real held-out volumes",
    "samples": "synthetic scans drawn",
    "unique_samples": "of which no two have the same codes",
}


_SCORES = (
    "samples",
    "unique_samples",
    "classifier_accuracy",
    "reconstruction_accuracy",
    "conditional_accuracy",
    "classification_accuracy_score",
)


@dataclass(frozen=True)
class Shown:
    """What is pictured: held-out volumes with their labels, reconstructions, samples.

    All channels are in [0, 1]; a label map's indices were divided by the largest.
    """

    labels: Sequence[str]
    volumes: Float[np.ndarray, "held channel *space"]
    reconstructions: Float[np.ndarray, "held channel *space"]
    samples: Float[np.ndarray, "sample channel *space"]


@dataclass(frozen=True)
class Studied:
    """The table of the study of the prior, and slices of each row; empty without a study."""

    rows: Sequence[Mapping[str, Any]]
    decoded: Sequence[Float[np.ndarray, "item ..."]]


def read_study(folder: Path, inputs: Mapping[str, str]) -> Studied:
    """A published study; IntegrityError when it is damaged, or of other outputs than `inputs`."""
    manifest = Manifest.read(folder)
    manifest.check(folder, list(manifest.items))
    for name, found in manifest.provenance["inputs"].items():
        if found != inputs[name]:
            raise IntegrityError(f"{folder} was made of other {name}. Run `vqmri study`.")
    rows = json.loads((folder / TABLE).read_text(encoding="utf-8"))
    if not rows:
        return Studied([], [])
    with np.load(folder / DECODED) as arrays:
        return Studied(rows, [arrays[f"way_{index}"] for index in range(len(rows))])


def write_report(
    folder: Path,
    data: Sequence[Section],
    metrics: Metrics,
    histories: Mapping[str, Sequence[Metrics]],
    shown: Shown,
    studied: Studied,
    provenance: Mapping[str, str],
) -> None:
    """Write report.html into `folder`, and its pictures of scans beside it.

    data: the first sections
    """
    slices = _PLANES if shown.samples.ndim == 5 else "Pictures"
    sections = [*data, *_of_models(metrics, histories, shown, slices)]
    sections.append(
        Section(
            "Samples",
            "Synthetic scans: codes drawn from the prior, decoded.",
            _table(metrics, _SCORES),
            [(f"{slices} of each", _gallery(shown.samples))],
        )
    )
    if studied.rows:
        sections.append(_study(studied))
        replace_file(folder / "study.png", _ways(studied))
    html = render("vqmri report", sections, provenance)
    replace_file(folder / REPORT, html.encode())
    replace_file(folder / "samples.png", _gallery(shown.samples))
    replace_file(folder / "reconstructions.png", _reconstructions(shown))


def _of_models(
    metrics: Metrics, histories: Mapping[str, Sequence[Metrics]], shown: Shown, slices: str
) -> list[Section]:
    """How well the VQ-VAE rebuilds held-out scans, and the prior predicts their codes."""
    bits = [n for n in metrics if n.startswith(("prior_bits_level", "marginal_bits_level"))]
    usage = [name for name in metrics if name.startswith(("usage", "perplexity"))]
    return [
        Section(
            "Reconstruction",
            "Held-out scans, none of whose subjects was trained on, encoded to codes and decoded. "
            "The difference is shown as grey for none, white for too bright, black for too dark.",
            _table(metrics, ["psnr_db", "psnr_db_of_mean_training_volume", "psnr_db_foreground",
                             "psnr_db_foreground_of_mean_training_volume", "ssim",
                             "ssim_of_mean_training_volume", "label_accuracy", "label_dice",
                             "bits_per_voxel"]),
            [(slices, _reconstructions(shown))],
        ),
        Section(
            "Codebook",
            "How the codes of each level are used: the share that occurs, and how many equally "
            "frequent codes would be as varied.",
            _table(metrics, usage),
            [("Training of the VQ-VAE", _vqvae_curves(histories["vqvae"]))],
        ),
        Section(
            "Prior",
            "The PixelCNN predicts each code from those before it.",
            _table(metrics, ["prior_bits_per_code", "marginal_bits_per_code", "prior_saving",
                             *bits]),
            [("Training of the prior", curves(histories["prior"], {
                "bits per code": ["bits_per_code", "held_out_bits_per_code"],
                "learning rate": ["learning_rate"],
            }))],
        ),
    ]  # fmt: skip


def _table(metrics: Metrics, names: Sequence[str]) -> list[tuple[str, str, str]]:
    return [
        (name.replace("_", " "), _figure(metrics[name]), _meaning(name))
        for name in names
        if name in metrics
    ]


def _figure(value: float) -> str:
    return f"{value:.0f}" if value == int(value) and abs(value) >= 1 else f"{value:.4g}"


def _meaning(name: str) -> str:
    if name.startswith("usage_level_"):
        return "share of the codebook that occurs in held-out codes, 0 to 1"
    if name.startswith("perplexity_level_"):
        return "2 to the entropy of the held-out codes, at most the codebook's size"
    if name.startswith("prior_bits_level_"):
        return "held-out bits per code of this map under the prior; a real gain's are of a density"
    if name.startswith("marginal_bits_level_"):
        return "the same without any context"
    return _MEANINGS[name]


_STUDY = (
    "Is the prior needed, and why must one draw? Ways to choose codes for the decoder, each with "
    "as many items. Bits per code are of held-out codes, where a way gives them a probability. The "
    "neighbour divergence is the Jensen-Shannon divergence, in bits, between the pairs of "
    "neighbouring codes and those of the held-out codes; what training codes reach at the same "
    "number of items is the floor. The difference between two items should be that of real codes. "
    "The difference to the nearest training item says whether samples are copies: compare it with "
    "that of the held-out codes. Held-out codes are their own reference, and training codes are in "
    "the training set, so these two cells are 0 by themselves; the rows of one scan are draws for "
    "a single held-out scan, without any prior, beside a whole population."
)


def _study(studied: Studied) -> Section:
    floor = next(
        row["neighbour_divergence"] for row in studied.rows if row["way"] == "real training codes"
    )
    head = ("way", "items", "unique", "bits per code", "difference between two",
            "neighbour divergence", "÷ floor", "difference to nearest training")  # fmt: skip
    rows = [
        (
            row["way"],
            str(row["items"]),
            str(row["unique"]),
            "" if row["bits_per_code"] is None else f"{row['bits_per_code']:.3f}",
            f"{row['pairwise_difference']:.3f}",
            f"{row['neighbour_divergence']:.4f}",
            f"{row['neighbour_divergence'] / floor:.2f}" if floor > 0 else "",
            f"{row['nearest_training_difference']:.3f}",
        )
        for row in studied.rows
    ]
    return Section("Study of the prior", _STUDY, pictures=[("Decoded, way by way", _ways(studied))],
                   head=head, rows=rows)  # fmt: skip


def _ways(studied: Studied) -> bytes:
    rows = [list(planes) for planes in studied.decoded]
    labels = [row["way"] for row in studied.rows]
    return montage(rows, [], labels, scale=2.5, flat_labels=True)


def _vqvae_curves(history: Sequence[Metrics]) -> bytes:
    names = list(history[-1])
    return curves(
        history,
        {
            "loss": ["loss", "mse", "quantizer"],
            "usage": [name for name in names if name.startswith("usage")],
            "perplexity": [name for name in names if name.startswith("perplexity")],
        },
    )


def _reconstructions(shown: Shown) -> bytes:
    rows = []
    for volume, reconstruction in zip(shown.volumes, shown.reconstructions, strict=True):
        difference = np.clip(0.5 + (reconstruction - volume), 0, 1)
        rows.append([strip(volume), strip(reconstruction), strip(difference)])
    titles = ["held-out scan", "reconstruction", "difference"]
    flat = shown.volumes.ndim == 4
    return montage(rows, titles, shown.labels, scale=5 if flat else 3, flat_labels=flat)


def _gallery(samples: Float[np.ndarray, "sample channel *space"]) -> bytes:
    columns = _GALLERY_COLUMNS if samples.ndim == 5 else _PICTURE_COLUMNS
    strips: list[Plane] = [strip(volume) for volume in samples]
    strips += [np.zeros_like(strips[0])] * (-len(strips) % columns)
    rows = [strips[i : i + columns] for i in range(0, len(strips), columns)]
    return montage(rows, [], [], scale=2.5)
