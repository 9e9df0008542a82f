"""volumes → vqvae: train the autoencoder."""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from vqmri.build.train_vqvae import augmentation_arguments, vqvae_arguments
from vqmri.build.training import deciding, training_plan
from vqmri.evaluation.codebook import Usage
from vqmri.layout import Layout
from vqmri.outputs import Identity, digest, need_space, replace_file
from vqmri.params import Params, TrainVQVAE
from vqmri.protocols import Map, Metrics, Tracker
from vqmri.scans.split import TRAIN
from vqmri.scans.store import VolumeStore
from vqmri.scans.volume import Record
from vqmri.stages.in_work import in_work
from vqmri.tracking.tracker import NullTracker
from vqmri.training.augment import Augmentation, cut
from vqmri.training.autoencoding import Autoencoding
from vqmri.training.batches import batch_indices, epoch_steps, item_seed
from vqmri.training.checkpoint import least_bytes
from vqmri.training.device import is_leader
from vqmri.training.loop import Task, fit
from vqmri.training.model_folder import HISTORY, write_model
from vqmri.training.optim import Muon
from vqmri.training.ranks import start_fabric
from vqmri.vqvae import VQVAE

FORMAT_VERSION = 5
REGISTERED = "vqmri-vqvae"
BYTES_IN_MEMORY = 2**30
"""Of training volumes that are kept there; more are read from the store as they are needed."""

_COLLAPSED_BELOW = 0.1  # of a codebook in use

log = logging.getLogger(__name__)


def train_vqvae(
    params: Params, data: Layout, *, tracker: Tracker | None = None, each: Map = map
) -> Metrics:
    """Publish data/vqvae and register it. Returns the last epoch's terms and codebook figures."""
    tracker = tracker if tracker and is_leader() else NullTracker()
    settings = params.train_vqvae
    volumes = data.need("volumes")
    identity = Identity(
        "train_vqvae",
        FORMAT_VERSION,
        {"seed": params.seed, "train_vqvae": deciding(settings)},
        {"volumes": digest(volumes)},
    )
    with in_work(data, "vqvae", identity, tracker) as work:
        store = VolumeStore(volumes)
        torch.manual_seed(params.seed)
        arguments = vqvae_arguments(
            settings,
            spatial_dims=len(store.shape) - 1,
            in_channels=store.num_images,
            num_classes=store.num_classes,
        )
        model = VQVAE(**arguments)
        if is_leader():
            need_space(work, least_bytes(model))
        history = _fit(params, model, store, work.state, tracker)
        about = {
            "shape": list(store.shape),
            "spacing": list(store.spacing),
            "orientation": store.orientation,
            "channels": [asdict(channel) for channel in store.channels],
            "stripped": all({"step": "strip"} in record.steps for record in store.records),
            "volumes": identity.inputs["volumes"],
        }
        if is_leader():
            write_model(work.out, model, arguments, about)
            replace_file(work.out / HISTORY, (json.dumps(history) + "\n").encode())
    tracker.model(REGISTERED, {"vqvae": data.output("vqvae")})
    return {key: value for key, value in history[-1].items() if key != "step"}


def _fit(
    params: Params, model: VQVAE, store: VolumeStore, checkpoints: Path, tracker: Tracker
) -> list[Metrics]:
    """Train the model in place on the training volumes; its history."""
    settings = params.train_vqvae
    fabric = start_fabric()
    trained = Autoencoding(
        model,
        spatial_dims=len(store.shape) - 1,
        spectral_cost=settings.spectral_cost,
        adversarial_cost=settings.adversarial_cost,
    )
    if settings.activation_checkpointing:
        model.recompute_activations()
    records = store.of_split(TRAIN)
    read = _reader(store, records)
    vary = _variation(settings, store, params.seed, fabric.device)
    usage = Usage(model.map_names, model.num_embeddings)
    per_epoch = epoch_steps(len(records), settings.batch_size)

    def batch(step: int) -> list[int]:
        return batch_indices(step, settings.batch_size, len(records), params.seed)

    def inputs(step: int, slots: range) -> list[Tensor]:
        chosen = batch(step)
        return [torch.from_numpy(read([chosen[slot] for slot in slots]))]

    def terms(
        model: nn.Module, step: int, slots: range, inputs: Sequence[Tensor]
    ) -> Mapping[str, Tensor]:
        found, codes = model(vary(inputs[0], step, slots))
        usage.add(codes)
        return found

    def epoch(step: int, published: nn.Module) -> Metrics:
        found = usage.take(partial(fabric.all_reduce, reduce_op="sum"))
        if step == settings.steps or 0 <= step - max(settings.warmup, 1) < per_epoch:
            _warn_of_collapse(found, step)
        return found

    return fit(
        Task(
            name="train_vqvae",
            model=trained,
            inputs=inputs,
            terms=terms,
            subjects=lambda step: [records[i].subject for i in batch(step)],
            epoch=epoch,
            tally=usage,
        ),
        Muon(trained, settings.weight_decay),
        training_plan(settings, seed=params.seed, count=len(records)),
        fabric=fabric,
        checkpoints=checkpoints,
        tracker=tracker,
    )


def _variation(
    settings: TrainVQVAE, store: VolumeStore, seed: int, device: torch.device
) -> Callable[[Tensor, int, range], Tensor]:
    """Volumes of some places in the batch of a step to what the model is shown of them."""
    augmentation = None
    if settings.augment is not None:
        augmentation = Augmentation(
            device=device,
            labelled=store.num_classes > 0,
            **augmentation_arguments(settings.augment, spacing=store.spacing),
        )

    def vary(volumes: Tensor, step: int, slots: range) -> Tensor:
        seeds = [item_seed(seed, step, slot) for slot in slots]
        if augmentation is not None:
            volumes = augmentation(volumes, seeds)
        return volumes if settings.patch is None else cut(volumes, settings.patch, seeds)

    return vary


def _warn_of_collapse(found: Metrics, step: int) -> None:
    for name, share in found.items():
        if name.startswith("usage_") and share < _COLLAPSED_BELOW:
            log.warning(
                "train_vqvae: %.1f %% of the codes of %s are in use at step %d: the codebook has "
                "collapsed. Lower train_vqvae.learning_rate or num_embeddings, or set "
                "quantizer.initialisation to kmeans.",
                100 * share,
                name.removeprefix("usage_"),
                step,
            )


def _reader(store: VolumeStore, records: Sequence[Record]) -> Callable[[Sequence[int]], np.ndarray]:
    """Volumes of some of the records: from memory where all fit well, else from the store."""
    if len(records) * int(np.prod(store.shape)) * 4 > BYTES_IN_MEMORY:
        return lambda chosen: store.read([records[i] for i in chosen])
    volumes = store.read(records)
    return lambda chosen: volumes[list(chosen)]
