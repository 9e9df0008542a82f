"""codes → prior: train the PixelCNN."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

from vqmri.build.train_prior import prior_arguments
from vqmri.codes import CodeStore
from vqmri.errors import IntegrityError
from vqmri.evaluation.likelihood import code_tensors, held_out_likelihood, inside
from vqmri.layout import Layout
from vqmri.outputs import Identity, publishing, replace_file
from vqmri.outputs.manifest import digest
from vqmri.params import Params
from vqmri.prior import Prior, nats_per_code
from vqmri.prior.covariates import Covariate, fit_covariates, known_rows, to_json
from vqmri.protocols import Map, Metrics, Tracker
from vqmri.scans.split import HELD_OUT, TRAIN
from vqmri.scans.volume import Record, code_box
from vqmri.tracking.tracker import NullTracker
from vqmri.training.batches import batch_indices, epoch_steps
from vqmri.training.device import choose_device, mixed_precision
from vqmri.training.loop import Task, fit
from vqmri.training.model_folder import HISTORY, write_model
from vqmri.training.optim import adamw, warmup_cosine

FORMAT_VERSION = 2
REGISTERED = "vqmri-generator"
_LOOKS_AT_HELD_OUT = 10  # times in a training


class Data(NamedTuple):
    """Codes in memory, one tensor per map with the finest first, and the items' covariates.

    subjects: of the training items; masks: held-out positions inside the fields of view
    """

    train: list[Tensor]
    train_rows: Tensor
    subjects: list[str]
    held_out: list[Tensor]
    held_out_rows: Tensor
    masks: list[Bool[np.ndarray, "item ..."]]


def train_prior(
    params: Params, data: Layout, *, tracker: Tracker | None = None, each: Map = map
) -> Metrics:
    """Publish data/prior and register it with the VQ-VAE as the generator.

    IntegrityError when the codes are not those of the published VQ-VAE.
    """
    tracker = tracker or NullTracker()
    settings = params.train_prior
    folder, vqvae = data.need("codes"), data.need("vqvae")
    identity = Identity(
        "train_prior",
        FORMAT_VERSION,
        {"seed": params.seed, "train_prior": settings.model_dump(mode="json")},
        {"codes": digest(folder)},
    )
    with publishing(data.output("prior"), data.work, identity) as work:
        store = CodeStore(folder)
        if store.attributes["vqvae"] != digest(vqvae):
            raise IntegrityError(
                f"{folder} holds codes of another VQ-VAE than {vqvae}. Run `vqmri encode`."
            )
        covariates = fit_covariates(
            [row.covariates for row in _records(store, TRAIN)], settings.conditions
        )
        torch.manual_seed(params.seed)
        arguments = prior_arguments(
            settings,
            grids=store.grids,
            num_embeddings=store.num_embeddings,
            covariates=to_json(covariates),
        )
        model = Prior(**arguments).to(choose_device())
        data_in_memory = _load(store, covariates)
        model.fit_gains(data_in_memory.train)
        history = _fit(params, model, data_in_memory, work.state, tracker)
        about = {
            "codes": identity.inputs["codes"],
            "vqvae_weights": store.attributes["vqvae_weights"],
        }
        write_model(work.out, model, arguments, about)
        replace_file(work.out / HISTORY, (json.dumps(history) + "\n").encode())
    tracker.model(REGISTERED, {"vqvae": vqvae, "prior": data.output("prior")})
    return {key: value for key, value in history[-1].items() if key != "step"}


def _fit(
    params: Params, model: Prior, data: Data, checkpoints: Path, tracker: Tracker
) -> list[Metrics]:
    """Train the model in place; its history."""
    settings = params.train_prior
    count = len(data.subjects)
    steps_per_epoch = epoch_steps(count, settings.batch_size)
    looks = -(-settings.steps // steps_per_epoch // _LOOKS_AT_HELD_OUT) * steps_per_epoch

    def batch(step: int) -> list[int]:
        return batch_indices(step, settings.batch_size, count, params.seed)

    def terms(step: int) -> Mapping[str, Tensor]:
        items = batch(step)
        chosen = [values[items].to(model.device) for values in data.train]
        with mixed_precision(model.device):
            found = model(chosen, data.train_rows[items].to(model.device))
        loss = nats_per_code(found, model.num_embeddings)
        return {"loss": loss, "bits_per_code": loss.detach() / np.log(2)}

    def epoch(step: int) -> Metrics:
        if step % looks and step != settings.steps:
            return {}
        likelihood = held_out_likelihood(model, data.held_out, data.masks, data.held_out_rows)
        return {"held_out_bits_per_code": likelihood.bits_per_code}

    return fit(
        Task(
            name="train_prior",
            model=model,
            terms=terms,
            subjects=lambda step: [data.subjects[i] for i in batch(step)],
            epoch=epoch,
        ),
        adamw(model, settings.weight_decay),
        warmup_cosine(settings.learning_rate, settings.warmup, settings.steps),
        steps=settings.steps,
        steps_per_epoch=steps_per_epoch,
        seed=params.seed,
        checkpoints=checkpoints,
        tracker=tracker,
    )


def _records(store: CodeStore, split: str) -> list[Record]:
    rows = [Record(**row) for row in store.attributes["records"]]
    return [row for row in rows if row.split == split]


def _load(store: CodeStore, covariates: Sequence[Covariate]) -> Data:
    """Both sides of the split; a held-out subject's value that training never met is missing."""
    sides = [row["split"] for row in store.attributes["records"]]
    train, held = _records(store, TRAIN), _records(store, HELD_OUT)
    levels = zip(store.attributes["downsamplings"], store.grids, strict=True)
    return Data(
        train=_tensors(store, sides, TRAIN),
        train_rows=known_rows(covariates, [row.covariates for row in train]),
        subjects=[row.subject for row in train],
        held_out=_tensors(store, sides, HELD_OUT),
        held_out_rows=known_rows(covariates, [row.covariates for row in held]),
        masks=[
            inside([code_box(row.box, factor) for row in held], grid) for factor, grid in levels
        ],
    )


def _tensors(store: CodeStore, sides: Sequence[str], split: str) -> list[Tensor]:
    items = [i for i, side in enumerate(sides) if side == split]
    return code_tensors(store.read(items), store.num_embeddings)
