"""codes → prior: train the PixelCNN."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor, nn

from vqmri.build.train_prior import prior_arguments
from vqmri.build.training import deciding, training_plan
from vqmri.codes import CodeStore, code_tensors
from vqmri.errors import IntegrityError
from vqmri.evaluation.likelihood import held_out_likelihood, masks_in_view
from vqmri.layout import Layout
from vqmri.outputs import Identity, digest, need_space, replace_file
from vqmri.params import Params
from vqmri.prior import Prior, nats_per_code
from vqmri.prior.covariates import Covariate, fit_covariates, known_rows, to_json
from vqmri.protocols import Map, Metrics, Tracker
from vqmri.scans.split import HELD_OUT, TRAIN, rows_of
from vqmri.scans.volume import Record
from vqmri.stages.in_work import in_work
from vqmri.tracking.tracker import NullTracker
from vqmri.training.batches import batch_indices
from vqmri.training.checkpoint import least_bytes
from vqmri.training.device import is_leader, mixed_precision
from vqmri.training.loop import Task, fit
from vqmri.training.model_folder import HISTORY, write_model
from vqmri.training.optim import adamw
from vqmri.training.ranks import start_fabric

FORMAT_VERSION = 4
REGISTERED = "vqmri-generator"
_LOOKS_AT_HELD_OUT = 10  # times in a training


class Side(NamedTuple):
    """Scans as they are, to look at: codes, covariates, and the positions in the fields of view."""

    maps: list[Tensor]
    rows: Tensor
    masks: list[Bool[np.ndarray, "item ..."]]


class Data(NamedTuple):
    """Codes in memory, one tensor per map with the finest first, and the items' covariates.

    train: what is learnt from, and of which subjects
    sides: by the name of the metric, held-out scans and as many training scans
    """

    train: list[Tensor]
    train_rows: Tensor
    subjects: list[str]
    sides: dict[str, Side]


def train_prior(
    params: Params, data: Layout, *, tracker: Tracker | None = None, each: Map = map
) -> Metrics:
    """Publish data/prior and register it with the VQ-VAE as the generator.

    IntegrityError when the codes are not those of the published VQ-VAE.
    """
    tracker = tracker if tracker and is_leader() else NullTracker()
    settings = params.train_prior
    folder, vqvae = data.need("codes"), data.need("vqvae")
    identity = Identity(
        "train_prior",
        FORMAT_VERSION,
        {"seed": params.seed, "train_prior": deciding(settings)},
        {"codes": digest(folder)},
    )
    with in_work(data, "prior", identity, tracker) as work:
        store = CodeStore(folder)
        if store.attributes["vqvae"] != digest(vqvae):
            raise IntegrityError(
                f"{folder} holds codes of another VQ-VAE ({store.attributes['vqvae'][:16]}) than "
                f"{vqvae} ({digest(vqvae)[:16]}). Run `vqmri encode`."
            )
        covariates = fit_covariates(
            [row["covariates"] for row in store.attributes["records"] if row["split"] == TRAIN],
            settings.conditions,
        )
        torch.manual_seed(params.seed)
        arguments = prior_arguments(
            settings,
            grids=store.grids,
            num_embeddings=store.num_embeddings,
            covariates=to_json(covariates),
        )
        model = Prior(**arguments)
        if is_leader():
            need_space(work, least_bytes(model))
        data_in_memory = _load(store, covariates)
        model.fit_gains(data_in_memory.train)
        history = _fit(params, model, data_in_memory, work.state, tracker)
        about = {
            "codes": identity.inputs["codes"],
            "vqvae_weights": store.attributes["vqvae_weights"],
            "residuals": store.attributes.get("residuals", []),
        }
        if is_leader():
            write_model(work.out, model, arguments, about)
            replace_file(work.out / HISTORY, (json.dumps(history) + "\n").encode())
    tracker.model(REGISTERED, {"vqvae": vqvae, "prior": data.output("prior")})
    return {key: value for key, value in history[-1].items() if key != "step"}


def _fit(
    params: Params, model: Prior, data: Data, checkpoints: Path, tracker: Tracker
) -> list[Metrics]:
    """Train the model in place; its history."""
    settings = params.train_prior
    fabric = start_fabric(unused=True)
    count = len(data.subjects)
    plan = training_plan(settings, seed=params.seed, count=count)
    epochs = -(-plan.steps // plan.steps_per_epoch)
    looks = -(-epochs // _LOOKS_AT_HELD_OUT) * plan.steps_per_epoch

    def batch(step: int) -> list[int]:
        return batch_indices(step, settings.batch_size, count, params.seed)

    def inputs(step: int, slots: range) -> list[Tensor]:
        chosen = batch(step)
        items = [chosen[slot] for slot in slots]
        return [torch.from_numpy(x.numpy()[items]) for x in (data.train_rows, *data.train)]

    def terms(
        model: nn.Module, step: int, slots: range, inputs: Sequence[Tensor]
    ) -> Mapping[str, Tensor]:
        rows, *maps = inputs
        with mixed_precision(rows.device):
            found = model(maps, rows)
        loss = nats_per_code(found, sizes)
        return {"loss": loss, "bits_per_code": loss.detach() / np.log(2)}

    def epoch(step: int, published: nn.Module) -> Metrics:
        if step % looks and step != settings.steps:
            return {}
        assert isinstance(published, Prior)
        return {
            name: held_out_likelihood(published, side.maps, side.masks, side.rows).bits_per_code
            for name, side in data.sides.items()
        }

    sizes = model.num_embeddings
    return fit(
        Task(
            name="train_prior",
            model=model,
            inputs=inputs,
            terms=terms,
            subjects=lambda step: [data.subjects[i] for i in batch(step)],
            epoch=epoch,
        ),
        adamw(model, settings.weight_decay),
        plan,
        fabric=fabric,
        checkpoints=checkpoints,
        tracker=tracker,
    )


def _load(store: CodeStore, covariates: Sequence[Covariate]) -> Data:
    """Both sides of the split; a held-out subject's value that training never met is missing.

    Where training volumes were varied the prior learns from the varied copies alone: the volumes as
    they are would be learnt by heart first, and are the ones that a stranger could ask for.
    """
    records = [Record(**row) for row in store.attributes["records"]]
    held, known = rows_of(records, HELD_OUT), rows_of(records, TRAIN)
    even = np.linspace(0, len(known) - 1, min(len(held), len(known))).astype(int)
    items, learnt = _learnt(store, records)
    return Data(
        train=_tensors(store, items),
        train_rows=known_rows(covariates, [known for _, known in learnt]),
        subjects=[subject for subject, _ in learnt],
        sides={
            "train_bits_per_code": _side(store, covariates, records, [known[i] for i in even]),
            "held_out_bits_per_code": _side(store, covariates, records, held),
        },
    )


def _side(
    store: CodeStore,
    covariates: Sequence[Covariate],
    records: Sequence[Record],
    rows: Sequence[int],
) -> Side:
    chosen = [records[row] for row in rows]
    return Side(
        _tensors(store, rows),
        known_rows(covariates, [record.covariates for record in chosen]),
        masks_in_view(store, [record.box for record in chosen]),
    )


def _learnt(
    store: CodeStore, records: Sequence[Record]
) -> tuple[list[int], list[tuple[str, dict[str, Any]]]]:
    """Items to learn from, and the subject and covariates of each."""
    varied = store.attributes.get("variations", [])
    if varied:
        first = len(records)
        return list(range(first, first + len(varied))), [
            (records[copy["of"]].subject, copy["covariates"]) for copy in varied
        ]
    rows = rows_of(records, TRAIN)
    return rows, [(records[row].subject, records[row].covariates) for row in rows]


def _tensors(store: CodeStore, items: Sequence[int]) -> list[Tensor]:
    return code_tensors(store.read(items), store.num_embeddings)
