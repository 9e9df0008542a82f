"""The report: its pages, and the pictures beside it."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from vqmri.evaluation.montage import Plane, curves, montage, strip
from vqmri.evaluation.report import Section, render
from vqmri.outputs import replace_file
from vqmri.protocols import Metrics
from vqmri.stages.findings import Found, Shown, Studied
from vqmri.stages.meanings import table
from vqmri.stages.report_samples import privacy_page, samples_page, use_page

REPORT = "report.html"
_GALLERY_COLUMNS = 4
_PICTURE_COLUMNS = 10
_PLANES = "Sagittal, coronal and axial middle slices"


def write_report(
    folder: Path,
    data: Sequence[Section],
    found: Found,
    shown: Shown,
    provenance: Mapping[str, str],
) -> None:
    """Write report.html into `folder`, and its pictures of scans beside it.

    data: the sections of the first page
    """
    slices = _PLANES if shown.samples.ndim == 5 else "Pictures"
    gallery = (f"{slices} of each", _gallery(shown.samples))
    sections = [
        *data,
        *_of_models(found.metrics, found.histories, shown, slices),
        _study(found.studied),
        *samples_page(found, shown, gallery),
        *use_page(found),
        *privacy_page(found),
    ]
    if found.studied.rows:
        replace_file(folder / "study.png", _ways(found.studied))
    replace_file(folder / REPORT, render("vqmri report", sections, provenance).encode())
    replace_file(folder / "samples.png", gallery[1])
    replace_file(folder / "reconstructions.png", _reconstructions(shown))


def _of_models(
    metrics: Metrics, histories: Mapping[str, Sequence[Metrics]], shown: Shown, slices: str
) -> list[Section]:
    """How well the VQ-VAE rebuilds held-out scans, and the prior predicts their codes."""
    bits = [n for n in metrics if n.startswith(("prior_bits_level", "marginal_bits_level"))]
    usage = [name for name in metrics if name.startswith(("usage", "perplexity"))]
    labels = [name for name in metrics if name.startswith("psnr_db_label_")]
    return [
        Section(
            "Reconstruction",
            "Held-out scans, none of whose subjects was trained on, encoded to codes and decoded. "
            "The difference is shown as grey for none, white for too bright, black for too dark.",
            table(metrics, ["bits_per_voxel", "bits_per_voxel_with_prior", "compression_of_int16",
                            "compression_of_gzip", "psnr_db", "psnr_db_of_mean_training_volume",
                            "psnr_db_foreground", "psnr_db_foreground_of_mean_training_volume",
                            "ssim", "ssim_of_mean_training_volume", "ms_ssim", "mae",
                            "label_accuracy", "label_dice", *labels]),
            [(slices, _reconstructions(shown))],
            page="Reconstruction",
        ),
        Section(
            "Codebook",
            "How the codes of each level are used: the share that occurs, and how many equally "
            "frequent codes would be as varied.",
            table(metrics, usage),
            [("Training of the VQ-VAE", _vqvae_curves(histories["vqvae"]))],
            page="Codebook",
        ),
        Section(
            "Prior",
            "The PixelCNN predicts each code from those before it.",
            table(metrics, ["prior_bits_per_code", "marginal_bits_per_code", "prior_saving",
                            *bits]),
            [("Training of the prior", curves(histories["prior"], {
                "bits per code": ["train_bits_per_code", "held_out_bits_per_code"],
                "learning rate": ["learning_rate"],
            }))],
            page="Prior study",
        ),
    ]  # fmt: skip


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
    if not studied.rows:
        return Section(
            "Study of the prior",
            "Not measured: params.yaml has no section `study`, which compares the prior's draws "
            "with other ways to choose codes.",
            page="Prior study",
        )
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
                   head=head, rows=rows, page="Prior study")  # fmt: skip


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
