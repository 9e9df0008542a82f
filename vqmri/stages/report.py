"""The sections of the report."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from vqmri.evaluation.montage import Plane, curves, montage, strip
from vqmri.evaluation.report import Section, render
from vqmri.outputs import replace_file
from vqmri.protocols import Metrics

REPORT = "report.html"
_GALLERY_COLUMNS = 4
_MEANINGS = {
    "psnr_db": "dB, inside each scan's field of view, mean over held-out volumes; higher is better",
    "ssim": "structural similarity there, at most 1; higher is better",
    "psnr_db_of_mean_training_volume": "the same for the mean training volume: the floor",
    "ssim_of_mean_training_volume": "the same for the mean training volume",
    "bits_per_voxel": "what the codes cost, without the prior's help",
    "prior_bits_per_code": "held-out codes under the prior, padding left out; lower is better",
    "marginal_bits_per_code": "the same without any context: entropy of the codes' histogram",
    "prior_saving": "share of those bits that the prior saves",
    "samples": "synthetic scans drawn",
    "unique_samples": "of which no two have the same codes",
}


@dataclass(frozen=True)
class Shown:
    """What is pictured: held-out volumes with their labels, reconstructions, samples."""

    labels: Sequence[str]
    volumes: Float[np.ndarray, "held channel x y z"]
    reconstructions: Float[np.ndarray, "held channel x y z"]
    samples: Float[np.ndarray, "sample channel x y z"]


def write_report(
    folder: Path,
    metrics: Metrics,
    histories: Mapping[str, Sequence[Metrics]],
    shown: Shown,
    provenance: Mapping[str, str],
) -> None:
    """Write report.html into `folder`."""
    usage = [name for name in metrics if name.startswith(("usage", "perplexity"))]
    sections = [
        Section(
            "Reconstruction",
            "Held-out scans, none of whose subjects was trained on, encoded to codes and decoded. "
            "The difference is shown as grey for none, white for too bright, black for too dark.",
            _table(metrics, ["psnr_db", "psnr_db_of_mean_training_volume", "ssim",
                             "ssim_of_mean_training_volume", "bits_per_voxel"]),
            [("Sagittal, coronal and axial middle slices", _reconstructions(shown))],
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
            _table(metrics, ["prior_bits_per_code", "marginal_bits_per_code", "prior_saving"]),
            [("Training of the prior", curves(histories["prior"], {
                "bits per code": ["bits_per_code", "held_out_bits_per_code"],
                "learning rate": ["learning_rate"],
            }))],
        ),
        Section(
            "Samples",
            "Synthetic scans: codes drawn from the prior, decoded.",
            _table(metrics, ["samples", "unique_samples"]),
            [("Sagittal, coronal and axial middle slices of each", _gallery(shown.samples))],
        ),
    ]  # fmt: skip
    html = render("vqmri report", sections, provenance)
    replace_file(folder / REPORT, html.encode())
    replace_file(folder / "samples.png", _gallery(shown.samples))
    replace_file(folder / "reconstructions.png", _reconstructions(shown))


def _table(metrics: Metrics, names: Sequence[str]) -> list[tuple[str, str, str]]:
    return [
        (name.replace("_", " "), f"{metrics[name]:.4g}", _meaning(name))
        for name in names
        if name in metrics
    ]


def _meaning(name: str) -> str:
    if name.startswith("usage_level_"):
        return "share of the codebook that occurs in held-out codes, 0 to 1"
    if name.startswith("perplexity_level_"):
        return "2 to the entropy of the held-out codes, at most the codebook's size"
    return _MEANINGS[name]


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
    for volume, reconstruction in zip(
        shown.volumes[:, 0], shown.reconstructions[:, 0], strict=True
    ):
        difference = np.clip(0.5 + (reconstruction - volume), 0, 1)
        rows.append([strip(volume), strip(reconstruction), strip(difference)])
    return montage(rows, ["held-out scan", "reconstruction", "difference"], shown.labels, scale=3)


def _gallery(samples: Float[np.ndarray, "sample channel x y z"]) -> bytes:
    strips: list[Plane] = [strip(volume) for volume in samples[:, 0]]
    strips += [np.zeros_like(strips[0])] * (-len(strips) % _GALLERY_COLUMNS)
    rows = [strips[i : i + _GALLERY_COLUMNS] for i in range(0, len(strips), _GALLERY_COLUMNS)]
    return montage(rows, [], [], scale=2.5)
