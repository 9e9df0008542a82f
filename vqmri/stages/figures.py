"""The figures of the report, from published outputs."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vqmri.codes import CodeStore, bits_per_position
from vqmri.errors import IntegrityError, ParamsError
from vqmri.evaluation.accuracy import accuracy, predict, train_classifier
from vqmri.evaluation.codebook import Usage
from vqmri.evaluation.likelihood import code_tensors, held_out_likelihood, inside
from vqmri.evaluation.reconstruction import dice, psnr_in_foreground, psnr_in_view, ssim_in_view
from vqmri.evaluation.structure import unique_items
from vqmri.outputs.manifest import digest
from vqmri.params import Classifier
from vqmri.prior.covariates import Categorical, known_rows
from vqmri.protocols import Metrics
from vqmri.scans.dataset import FOREGROUND
from vqmri.scans.split import HELD_OUT, TRAIN
from vqmri.scans.store import VolumeStore
from vqmri.scans.volume import Record, code_box, crop
from vqmri.shapes import Box
from vqmri.training.generator import Generator

_VOXELS_PER_BATCH = 2**20
_CLASSIFIER_BATCH = 128


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

    def viewable(self, volumes: np.ndarray) -> np.ndarray:
        """The volumes with all channels in [0, 1]: indices of labels divided by the largest."""
        if not self.volumes.num_classes:
            return volumes
        shades = volumes[:, -1:] / (self.volumes.num_classes - 1)
        return np.concatenate([volumes[:, :-1], shades.astype(volumes.dtype)], axis=1)

    def decode(self, codes: Sequence[np.ndarray]) -> np.ndarray:
        """Volumes (item, channel, *space) of stored codes."""
        return self.generator.decode(code_tensors(codes, self.codes.num_embeddings))


def open_outputs(folders: dict[str, Path]) -> Opened:
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


def reconstruction(opened: Opened, reconstructions: np.ndarray) -> Metrics:
    """Held-out PSNR and SSIM in the fields of view, and PSNR in the foreground.

    Each of the reconstructions and of the mean training volume.
    """
    held = opened.records(HELD_OUT)
    boxes = [record.box for record in held]
    images = opened.volumes.shape[0] - (opened.volumes.num_classes > 0)
    everything = opened.volumes.read(held)
    volumes, found = everything[:, :images], reconstructions[:, :images]
    mean = np.broadcast_to(_mean_volume(opened)[:images], volumes.shape)
    labelled = opened.volumes.num_classes > 0
    return (_labels(everything, reconstructions, boxes) if labelled else {}) | {
        "psnr_db": float(np.mean(psnr_in_view(found, volumes, boxes))),
        "ssim": _mean(ssim_in_view(found, volumes, boxes)),
        "psnr_db_of_mean_training_volume": float(np.mean(psnr_in_view(mean, volumes, boxes))),
        "ssim_of_mean_training_volume": _mean(ssim_in_view(mean, volumes, boxes)),
        "psnr_db_foreground": _mean(psnr_in_foreground(found, volumes, boxes, FOREGROUND)),
        "psnr_db_foreground_of_mean_training_volume": _mean(
            psnr_in_foreground(mean, volumes, boxes, FOREGROUND)
        ),
    }


def _mean(values: Sequence[float]) -> float:
    """Mean of the numbers among the values; NaN when there is none."""
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")


def _mean_volume(opened: Opened) -> np.ndarray:
    total = np.zeros(opened.volumes.shape)
    records = opened.records(TRAIN)
    size = max(1, _VOXELS_PER_BATCH // total.size)
    for start in range(0, len(records), size):
        total += opened.volumes.read(records[start : start + size]).sum(axis=0, dtype=np.float64)
    return (total / len(records)).astype(np.float32)


def codebook(opened: Opened) -> Metrics:
    """Rate, and the use of each codebook on all held-out codes."""
    usage = Usage([m.name for m in opened.codes.maps], opened.codes.num_embeddings)
    held = opened.codes.read(opened.indices(HELD_OUT))
    usage.add([torch.from_numpy(np.ascontiguousarray(values)) for values in held])
    voxels = int(np.prod(opened.volumes.shape[1:]))
    bits = sum(
        int(np.prod(m.grid)) * bits_per_position(m.num_embeddings) for m in opened.codes.maps
    )
    return {"bits_per_voxel": bits / voxels, **usage.take()}


def prior(opened: Opened) -> Metrics:
    """Held-out bits per code inside the fields of view, beside the marginal entropy there."""
    records, prior = opened.records(HELD_OUT), opened.generator.prior
    masks = [
        inside([code_box(record.box, factor) for record in records], grid)
        for factor, grid in zip(
            opened.codes.attributes["downsamplings"], opened.codes.grids, strict=True
        )
    ]
    held = opened.codes.read(opened.indices(HELD_OUT))
    maps = code_tensors(held, opened.codes.num_embeddings)
    rows = known_rows(prior.covariates, [record.covariates for record in records])
    found = held_out_likelihood(prior, maps, masks, rows)
    metrics = {
        "prior_bits_per_code": found.bits_per_code,
        "marginal_bits_per_code": found.marginal_bits_per_code,
        "prior_saving": 1 - found.bits_per_code / found.marginal_bits_per_code,
    }
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


def classification(
    opened: Opened, reconstructions: np.ndarray, settings: Classifier, seed: int
) -> Metrics:
    """Classification Accuracy Score and the share of samples that show what was asked for.

    One classifier is trained on real training volumes, one of the same kind on samples alone.
    """
    name = settings.covariate
    known = next((c for c in opened.generator.prior.covariates if c.name == name), None)
    asked_of = opened.samples.attributes["covariates"]
    if known is None or any(row.get(name) is None for row in asked_of):
        raise IntegrityError(
            f"evaluate.classifier.covariate = {name!r}, but the prior or the samples were made "
            "without it. Run `dvc repro`."
        )
    if not isinstance(known, Categorical):
        raise ParamsError(f"evaluate.classifier.covariate = {name!r} is not categorical.")
    asked = _classes(asked_of, known)
    if lacking := [value for i, value in enumerate(known.values) if i not in asked]:
        raise ParamsError(
            f"sample.covariates.{name}: there is no sample of {', '.join(lacking)}, which "
            "evaluate.classifier is to recognise. Ask for all of them."
        )
    train, held = (_known(opened.records(split), known) for split in (TRAIN, HELD_OUT))
    if not held:
        return {}
    real, test = opened.volumes.read(train), opened.volumes.read(held)
    drawn = opened.decode(opened.samples.read(range(opened.samples.count)))
    voxels = int(np.prod(opened.volumes.shape))
    train_one = partial(
        train_classifier,
        num_classes=len(known.values),
        steps=settings.steps,
        seed=seed,
        batch_size=min(_CLASSIFIER_BATCH, max(1, _VOXELS_PER_BATCH // voxels)),
    )
    of_real = train_one(real, _classes([r.covariates for r in train], known))
    of_samples = train_one(drawn, asked)
    truth = _classes([record.covariates for record in held], known)
    labelled = [known.is_known(r.covariates.get(name)) for r in opened.records(HELD_OUT)]
    return {
        "classifier_accuracy": accuracy(predict(of_real, test), truth),
        "reconstruction_accuracy": accuracy(predict(of_real, reconstructions[labelled]), truth),
        "conditional_accuracy": accuracy(predict(of_real, drawn), asked),
        "classification_accuracy_score": accuracy(predict(of_samples, test), truth),
    }


def _known(records: Sequence[Record], covariate: Categorical) -> list[Record]:
    return [r for r in records if covariate.is_known(r.covariates.get(covariate.name))]


def _classes(rows: Sequence[Mapping[str, Any]], covariate: Categorical) -> np.ndarray:
    return np.array([covariate.values.index(str(row[covariate.name])) for row in rows])
