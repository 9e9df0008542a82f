"""What the figures mean, in words: for the report and the documents beside it."""

from collections.abc import Sequence

from vqmri.protocols import Metrics

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
    "samples": "synthetic scans drawn",
    "unique_samples": "of which no two have the same codes",
    "bits_per_voxel_with_prior": "the same with the prior's help; codes of padding left out",
    "compression_of_int16": "size of the voxels as int16 over that of their codes",
    "compression_of_gzip": "the same of the gzipped voxels",
    "ms_ssim": "multi-scale structural similarity, at most 1; higher is better",
    "mae": "mean absolute error of intensities in [0, 1]; lower is better",
    "frechet_ratio": "Fréchet distance of samples to held-out scans over that of training scans",
    "mmd_ratio": "the same of the maximum mean discrepancy",
    "coverage_ratio": "held-out scans with a sample as near as their neighbours, over the same of "
    "training scans; higher is better",
    "frechet": "distance of samples to as many held-out scans",
    "mmd": "squared maximum mean discrepancy, biased",
    "precision": "share of the samples among the held-out scans",
    "recall": "share of the held-out scans among the samples",
    "density": "how densely samples lie among held-out scans, about 1 for real ones",
    "coverage": "share of the held-out scans that have a sample in their neighbourhood",
    "diversity_ms_ssim": "mean MS-SSIM of two samples; real scans' is what it should be",
    "diversity_ms_ssim_of_real": "the same of held-out scans",
    "ventricle_slope_real": "cm³ of fluid for each year of age, in phantoms",
    "ventricle_slope_samples": "the same in samples, by the age that was asked for",
    "ventricle_slope_ratio": "the second over the first; 1: age acts as it does in phantoms",
    "mia_auc": "membership inference by the prior's likelihood; 0.5: nothing is told",
    "mia_control": "the same of training subjects against others: chance at this number",
    "mia_p_value": "how often subjects dealt at random give at least that",
    "mia_true_positives": "share of training scans found with 10 % false alarms",
    "mia_flagged": "1 when training subjects can be told from others",
    "mia_of_overtrained_auc": "the same attack on a prior overtrained on four scans",
    "mia_of_overtrained_flagged": "1 when the attack finds those four, as it must",
    "nearest_correlation": "mean r of a sample with the training scan most like it",
    "nearest_correlation_most": "the highest of these",
    "nearest_correlation_of_held_out": "the same of held-out scans",
    "nearest_correlation_of_held_out_most": "the highest of these",
    "nearer_to_training_by_correlation": "share of samples nearer to training than to as many "
    "held-out subjects; 0.5 by chance",
    "nearer_to_training_by_features": "the same in features of a random net",
    "nearest_is_training_by_correlation": "share of samples whose nearest known scan is a training "
    "one; by chance the share of training subjects",
    "nearest_is_training_by_features": "the same in features of a random net",
    "nearest_correlation_of_copies": "mean r of four training scans, encoded and decoded, with the "
    "nearest: what a copy has",
    "nearest_is_training_of_copies_by_correlation": "share of these whose nearest known scan is a "
    "training one; 1, or the test is blind",
    "nearest_is_training_of_copies_by_features": "the same in features of a random net",
}
_BEGINNINGS = {
    "usage_level_": "share of the codebook that occurs in held-out codes, 0 to 1",
    "perplexity_level_": "2 to the entropy of the held-out codes, at most the codebook's size",
    "prior_bits_level_": "held-out bits per code of this map under the prior; a real gain's are "
    "of a density",
    "marginal_bits_level_": "the same without any context",
    "psnr_db_label_": "PSNR inside this label, dB",
    "longest_run_": "codes in a row that a sample, or a held-out scan, shares with a training scan",
    "use_": "of nets that learnt from real scans, from samples or from both; see the report",
    "frechet_": "in another space of features",
    "mmd_": "in another space of features",
    "coverage_": "in another space of features",
    "precision_": "in another space of features",
    "recall_": "in another space of features",
    "density_": "in another space of features",
    "nearest_": "of four training scans that went through the codes",
    "mia_": "membership inference",
}


def meaning(name: str) -> str:
    """What a figure of data/metrics.json is; the ends of an interval are called so."""
    for end, words in (("_low", "lower"), ("_high", "upper")):
        if name.endswith(end):
            return f"{words} end of the 95 % interval of {name.removesuffix(end)}"
    if name.endswith("_fooled_by"):
        return "known fakes that reach the bound; with any, the figure is no gate"
    if name in _MEANINGS:
        return _MEANINGS[name]
    return next(words for start, words in _BEGINNINGS.items() if name.startswith(start))


def table(metrics: Metrics, names: Sequence[str]) -> list[tuple[str, str, str]]:
    """Rows (name, value, meaning) of those figures that there are."""
    return [
        (name.replace("_", " "), figure(metrics, name), meaning(name))
        for name in names
        if name in metrics
    ]


def figure(metrics: Metrics, name: str) -> str:
    """A value, with its interval where it has one."""
    ends = [number(metrics[key]) for key in (f"{name}_low", f"{name}_high") if key in metrics]
    interval = f" ({' to '.join(ends)})" if len(ends) == 2 else ""
    return number(metrics[name]) + interval


def number(value: float) -> str:
    """Four significant digits; whole numbers as such."""
    return f"{value:.0f}" if value == int(value) and abs(value) >= 1 else f"{value:.4g}"
