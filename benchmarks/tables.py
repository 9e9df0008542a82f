"""The README's tables, from what benchmarks found; a row of what was not run is left out."""

from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.page import table

Result = Mapping[str, Any]
"""`date`, `commit`, `machine`, `seconds`, and `found`: the benchmark's last line."""

_QUALITY = "quality-"
_BESIDE: Sequence[tuple[str, str, str, str]] = (
    ("sampling", "forwards_b4", "sampling 4 volumes of codes, in forward passes", "{:.2f}"),
    ("sampling", "ratio_naive_b4", "… faster than a forward pass for every code", "{:,.0f} times"),
    ("sampling", "ratio_peer_b4", "… faster than MONAI's transformer inferer", "{:,.0f} times"),
    ("training", "psnr_gain_db", "reconstruction over MONAI's VQVAE as it comes, equal minutes",
     "{:+.1f} dB"),
    ("training", "psnr_gain_fast_db", "… over the same in bfloat16 and channels-last",
     "{:+.1f} dB"),
    ("training", "step_ratio", "a step at equal work, faster than MONAI's", "{:.2f} times"),
    ("quantizer_speed", "ratio_peer", "the quantizer by itself, faster than MONAI's",
     "{:.1f} times"),
    ("quantizer_speed", "ratio_product", "… time over one matrix product, its floor", "{:.2f}"),
    ("ingest", "ratio_peer", "ingest, faster than MONAI's PersistentDataset", "{:.2f} times"),
    ("ingest", "ratio_floor", "… time over decompression alone, its floor", "{:.2f}"),
)  # fmt: skip

_MEASURED = {"ratio_naive_b4": "naive_measured", "ratio_peer_b4": "peer_measured"}
"""Ratios that may be estimated from the time of some steps, and what says whether they are."""


def tables(kept: Mapping[str, Result]) -> str:
    """All of them, as Markdown."""
    quality = {
        name.removeprefix(_QUALITY): result
        for name, result in kept.items()
        if name.startswith(_QUALITY)
    }
    parts = [_reconstruction(quality), _samples(quality), _beside(kept)]
    return "\n\n".join(part for part in parts if part)


def _reconstruction(quality: Mapping[str, Result]) -> str:
    titles = ["preset", "bits per voxel", "PSNR, dB", "of the mean volume", "SSIM", "codes used",
              "prior, bits per code", "marginal", "measured"]  # fmt: skip
    rows = []
    for preset, result in quality.items():
        found = result["found"]["metrics"]
        rows.append(
            [
                f"`{preset}`",
                f"{found['bits_per_voxel']:.3f}",
                f"{found['psnr_db']:.1f}",
                f"{found['psnr_db_of_mean_training_volume']:.1f}",
                f"{found['ssim']:.2f}",
                f"{100 * found['usage_level_0']:.0f} %",
                f"{found['prior_bits_per_code']:.2f}",
                f"{found['marginal_bits_per_code']:.2f}",
                _when(result),
            ]
        )
    return table(titles, rows) if rows else ""


def _samples(quality: Mapping[str, Result]) -> str:
    titles = ["preset", "Fréchet ratio", "coverage", "learnt from samples, over learnt from real",
              "members told from others, AUC"]  # fmt: skip
    rows = []
    for preset, result in quality.items():
        found = result["found"]["metrics"]
        rows.append(
            [
                f"`{preset}`",
                _interval(found, "frechet_ratio"),
                _interval(found, "coverage_ratio"),
                _use(found),
                _interval(found, "mia_auc"),
            ]
        )
    return table(titles, rows) if rows else ""


def _use(found: Mapping[str, float]) -> str:
    """Segmentation and accuracy scores, above chance."""
    scores = [(name, 2) for name in sorted(found) if name.endswith(("_over_real", "_cas"))]
    return ", ".join(
        f"{name.removeprefix('use_').split('_')[0]} {found[name]:.{digits}f}"
        for name, digits in scores
    )


def _interval(found: Mapping[str, float], name: str) -> str:
    """A figure with its 95 % interval."""
    low, high = found[f"{name}_low"], found[f"{name}_high"]
    return f"{found[name]:.2f} ({low:.2f} to {high:.2f})"


def _beside(kept: Mapping[str, Result]) -> str:
    rows = [
        [words, _figure(kept[name]["found"], key, form), _when(kept[name])]
        for name, key, words, form in _BESIDE
        if name in kept
    ]
    return table(["beside its peers", "", "measured"], rows) if rows else ""


def _figure(found: Mapping[str, Any], key: str, form: str) -> str:
    estimated = key in _MEASURED and not found[_MEASURED[key]]
    return form.format(found[key]) + (", estimated from its steps" if estimated else "")


def _when(result: Result) -> str:
    return f"{result['date']}, {result['machine']}, {result['commit']}"
