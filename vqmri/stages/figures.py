"""The figures of the report, from published outputs."""

import zlib
from collections.abc import Sequence

import numpy as np
import torch

from vqmri.codes import bits_per_position, code_tensors
from vqmri.evaluation.codebook import Usage
from vqmri.evaluation.likelihood import held_out_likelihood, masks_in_view, plain_bits
from vqmri.evaluation.reconstruction import (
    dice,
    mae_in_view,
    ms_ssim_in_view,
    psnr_in_foreground,
    psnr_in_view,
    psnr_per_label,
    ssim_in_view,
)
from vqmri.evaluation.structure import unique_items
from vqmri.prior.covariates import known_rows
from vqmri.protocols import Metrics
from vqmri.scans.dataset import FOREGROUND
from vqmri.scans.phantom import is_phantom, ventricle_volume
from vqmri.scans.split import HELD_OUT
from vqmri.scans.volume import crop
from vqmri.shapes import Box
from vqmri.stages.opened import Opened

_GZIPPED = 16  # held-out scans


def reconstruction(opened: Opened, reconstructions: np.ndarray) -> Metrics:
    """Held-out PSNR and SSIM in the fields of view, and PSNR in the foreground.

    Each of the reconstructions and of the mean training volume.
    """
    held = opened.records(HELD_OUT)
    boxes = [record.box for record in held]
    images = opened.volumes.num_images
    everything = opened.volumes.read(held)
    volumes, found = everything[:, :images], reconstructions[:, :images]
    mean = np.broadcast_to(opened.mean_volume()[:images], volumes.shape)
    of_labels = (
        _labels(everything, reconstructions, boxes)
        | _per_label(opened, everything, reconstructions, boxes)
        if opened.volumes.num_classes
        else {}
    )
    return of_labels | {
        "psnr_db": float(np.mean(psnr_in_view(found, volumes, boxes))),
        "ssim": _mean(ssim_in_view(found, volumes, boxes)),
        "ms_ssim": _mean(ms_ssim_in_view(found, volumes, boxes)),
        "mae": float(np.mean(mae_in_view(found, volumes, boxes))),
        "psnr_db_of_mean_training_volume": float(np.mean(psnr_in_view(mean, volumes, boxes))),
        "ssim_of_mean_training_volume": _mean(ssim_in_view(mean, volumes, boxes)),
        "psnr_db_foreground": _mean(psnr_in_foreground(found, volumes, boxes, FOREGROUND)),
        "psnr_db_foreground_of_mean_training_volume": _mean(
            psnr_in_foreground(mean, volumes, boxes, FOREGROUND)
        ),
    }


def _mean(values: Sequence[float]) -> float:
    """Mean of the finite ones among the values; NaN when there is none."""
    known = [value for value in values if np.isfinite(value)]
    return float(np.mean(known)) if known else float("nan")


def codebook(opened: Opened) -> Metrics:
    """Rate, and the use of each codebook on all held-out codes."""
    usage = Usage([m.name for m in opened.codes.maps], opened.codes.num_embeddings)
    held = opened.codes.read(opened.indices(HELD_OUT))
    usage.add([torch.from_numpy(np.ascontiguousarray(values)) for values in held])
    voxels = int(np.prod(opened.volumes.shape[1:]))
    bits = sum(
        int(np.prod(m.grid)) * bits_per_position(m.num_embeddings) for m in opened.codes.maps
    )
    return {"bits_per_voxel": bits / voxels, **_compression(opened), **usage.take()}


def _compression(opened: Opened) -> Metrics:
    """How many times smaller codes are than the scans' voxels in view as int16, plain and gzipped.

    All channels count. Codes are counted without the prior's help.
    """
    held = opened.records(HELD_OUT)[:_GZIPPED]
    plain, zipped, bits = 0, 0, 0.0
    for record in held:
        volume = opened.volumes.read([record])[0]
        volume[: opened.volumes.num_images] *= np.iinfo(np.int16).max
        voxels = np.rint(volume[..., *crop(record.box)]).astype("<i2").tobytes()
        plain, zipped = plain + 8 * len(voxels), zipped + 8 * len(zlib.compress(voxels, 6))
        bits += plain_bits(
            record.box, opened.codes.attributes["downsamplings"], opened.codes.num_embeddings
        )
    if not held:
        return {}
    return {"compression_of_int16": plain / bits, "compression_of_gzip": zipped / bits}


def prior(opened: Opened) -> Metrics:
    """Held-out bits per code inside the fields of view, beside the marginal entropy there."""
    records, prior = opened.records(HELD_OUT), opened.generator.prior
    masks = masks_in_view(opened.codes, [record.box for record in records])
    held = opened.codes.read(opened.indices(HELD_OUT))
    maps = code_tensors(held, opened.codes.num_embeddings)
    rows = known_rows(prior.covariates, [record.covariates for record in records])
    found = held_out_likelihood(prior, maps, masks, rows)
    metrics = {
        "prior_bits_per_code": found.bits_per_code,
        "marginal_bits_per_code": found.marginal_bits_per_code,
    }
    if found.marginal_bits_per_code > 0:  # 0: a collapsed codebook, of which nothing can be saved
        metrics["prior_saving"] = 1 - found.bits_per_code / found.marginal_bits_per_code
    if all(opened.codes.num_embeddings):
        factors = zip(found.bits, opened.codes.attributes["downsamplings"], strict=True)
        dims = len(opened.volumes.shape) - 1  # a code stands for factor^dims voxels, in padding too
        metrics["bits_per_voxel_with_prior"] = sum(bits / f**dims for bits, f in factors)
    if len(maps) > 1:
        names = [code_map.name for code_map in opened.codes.maps]
        metrics |= {f"prior_bits_{n}": bits for n, bits in zip(names, found.bits, strict=True)}
        marginal = zip(names, found.marginal_bits, strict=True)
        metrics |= {f"marginal_bits_{name}": bits for name, bits in marginal}
    return metrics


def variety(opened: Opened) -> Metrics:
    """How many samples there are, and how many of them are unique."""
    drawn = opened.samples.read(range(opened.samples.count))
    unique = float(unique_items(drawn))
    return {"samples": float(len(drawn[0])), "unique_samples": unique}


def _labels(volumes: np.ndarray, reconstructions: np.ndarray, boxes: Sequence[Box]) -> Metrics:
    """Share of the voxels in view whose label is reconstructed right, and Dice; means of scans."""
    pairs = [
        (reconstruction[-1][crop(box)].ravel(), volume[-1][crop(box)].ravel())
        for volume, reconstruction, box in zip(volumes, reconstructions, boxes, strict=True)
    ]
    return {
        "label_accuracy": float(np.mean([(found == true).mean() for found, true in pairs])),
        "label_dice": _mean([dice(found, true) for found, true in pairs]),
    }


def _per_label(
    opened: Opened, volumes: np.ndarray, found: np.ndarray, boxes: Sequence[Box]
) -> Metrics:
    """PSNR of the grey channels inside each label of the true map."""
    values = opened.volumes.channels[-1].label_values
    grey = volumes[:, :-1]
    psnr = psnr_per_label(found[:, :-1], grey, volumes[:, -1], boxes, range(len(values)))
    return {f"psnr_db_label_{values[index]}": _mean(each) for index, each in psnr.items()}


def ventricles(opened: Opened) -> tuple[Metrics, dict[str, np.ndarray]]:
    """Of phantoms: cm³ of fluid in the middle of the head for each year of age, asked and true.

    Beside the figures, for a picture: age and volume of real heads and of samples. Nothing for
    other scans, and for samples that no two ages were asked of.
    """
    records = opened.volumes.records
    asked = [row.get("age") for row in opened.samples.attributes["covariates"]]
    if not all(is_phantom(r.source) for r in records) or None in asked or len(set(asked)) < 2:
        return {}, {}
    affine = np.array(records[0].normalised_affine)
    real = [ventricle_volume(opened.volumes.read([r])[0, 0], affine) for r in records]
    drawn = opened.decode_samples(range(opened.samples.count))
    found = {
        "real_age": np.array([r.covariates["age"] for r in records], np.float64),
        "real_volume": np.array(real),
        "samples_age": np.array(asked, np.float64),
        "samples_volume": np.array([ventricle_volume(volume[0], affine) for volume in drawn]),
    }
    slopes = {
        side: float(np.polyfit(found[f"{side}_age"], found[f"{side}_volume"], 1)[0])
        for side in ("real", "samples")
    }
    return {
        "ventricle_slope_real": slopes["real"],
        "ventricle_slope_samples": slopes["samples"],
        "ventricle_slope_ratio": slopes["samples"] / slopes["real"],
    }, found
