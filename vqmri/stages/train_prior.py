"""codes → prior: train the PixelCNN."""

import json
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from vqmri.build.train_prior import prior_arguments
from vqmri.codes import CodeStore
from vqmri.evaluation.likelihood import held_out_likelihood, inside
from vqmri.layout import Layout
from vqmri.outputs import Identity, publishing, replace_file
from vqmri.outputs.manifest import digest
from vqmri.params import Params
from vqmri.prior import Prior, nats_per_code
from vqmri.protocols import Map, Metrics, Tracker
from vqmri.scans.split import HELD_OUT, TRAIN
from vqmri.scans.volume import Record, code_box
from vqmri.tracking.tracker import NullTracker
from vqmri.training.batches import batch_indices
from vqmri.training.device import choose_device, mixed_precision
from vqmri.training.loop import Task, fit
from vqmri.training.model_folder import write_model
from vqmri.training.optim import adamw, warmup_cosine

FORMAT_VERSION = 1
HISTORY = "history.json"
REGISTERED = "vqmri-generator"
_LOOKS_AT_HELD_OUT = 10  # times in a training


def train_prior(
    params: Params, data: Layout, *, tracker: Tracker | None = None, each: Map = map
) -> Metrics:
    """Publish data/prior and register it with the VQ-VAE as the generator."""
    tracker = tracker or NullTracker()
    settings = params.train_prior
    folder = data.need("codes")
    identity = Identity(
        "train_prior",
        FORMAT_VERSION,
        {"seed": params.seed, "train_prior": settings.model_dump(mode="json")},
        {"codes": digest(folder)},
    )
    with publishing(data.output("prior"), data.work, identity) as work:
        store = CodeStore(folder)
        rows = [Record(**row) for row in store.attributes["records"]]
        train = [i for i, row in enumerate(rows) if row.split == TRAIN]
        held = [i for i, row in enumerate(rows) if row.split == HELD_OUT]
        codes, held_codes = _tensors(store, train), _tensors(store, held)
        masks = [
            inside([code_box(rows[i].box, factor) for i in held], grid)
            for factor, grid in zip(store.attributes["downsamplings"], store.grids, strict=True)
        ]
        device = choose_device()
        torch.manual_seed(params.seed)
        arguments = prior_arguments(
            settings, grids=store.grids, num_embeddings=store.num_embeddings
        )
        model = Prior(**arguments).to(device)
        steps_per_epoch = -(-len(train) // settings.batch_size)
        looks = -(-settings.steps // steps_per_epoch // _LOOKS_AT_HELD_OUT) * steps_per_epoch

        def batch(step: int) -> list[int]:
            return batch_indices(step, settings.batch_size, len(train), params.seed)

        def terms(step: int) -> Mapping[str, Tensor]:
            chosen = [level[batch(step)].to(device).long() for level in codes]
            with mixed_precision(device):
                logits = model(chosen)
            loss = nats_per_code(logits, chosen)
            return {"loss": loss, "bits_per_code": loss.detach() / np.log(2)}

        def epoch(step: int) -> Metrics:
            if step % looks and step != settings.steps:
                return {}
            likelihood = held_out_likelihood(model, held_codes, masks)
            return {"held_out_bits_per_code": likelihood.bits_per_code}

        history = fit(
            Task(
                name="train_prior",
                model=model,
                terms=terms,
                subjects=lambda step: [rows[train[i]].subject for i in batch(step)],
                epoch=epoch,
            ),
            adamw(model, settings.weight_decay),
            warmup_cosine(settings.learning_rate, settings.warmup, settings.steps),
            steps=settings.steps,
            steps_per_epoch=steps_per_epoch,
            seed=params.seed,
            checkpoints=work.state,
            tracker=tracker,
        )
        about = {
            "codes": identity.inputs["codes"],
            "vqvae_weights": store.attributes["vqvae_weights"],
        }
        write_model(work.out, model, arguments, about)
        replace_file(work.out / HISTORY, (json.dumps(history) + "\n").encode())
    folders = {"vqvae": data.need("vqvae"), "prior": data.output("prior")}
    tracker.model(REGISTERED, folders)
    return {key: value for key, value in history[-1].items() if key != "step"}


def _tensors(store: CodeStore, indices: list[int]) -> list[Tensor]:
    """Codes of some items as int32 tensors in memory, finest level first."""
    return [torch.from_numpy(level.astype(np.int32)) for level in store.read(indices)]
