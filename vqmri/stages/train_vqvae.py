"""volumes → vqvae: train the autoencoder."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from vqmri.build.train_vqvae import vqvae_arguments
from vqmri.evaluation.codebook import Usage
from vqmri.layout import Layout
from vqmri.outputs import Identity, publishing, replace_file
from vqmri.outputs.manifest import digest
from vqmri.params import Params
from vqmri.protocols import Map, Metrics, Tracker
from vqmri.scans.split import TRAIN
from vqmri.scans.store import VolumeStore
from vqmri.scans.volume import Record
from vqmri.tracking.tracker import NullTracker
from vqmri.training.batches import batch_indices, epoch_steps
from vqmri.training.device import choose_device, mixed_precision
from vqmri.training.loop import Task, fit
from vqmri.training.model_folder import HISTORY, write_model
from vqmri.training.optim import adamw, warmup_cosine
from vqmri.vqvae import VQVAE, objective

FORMAT_VERSION = 2
REGISTERED = "vqmri-vqvae"
_BYTES_IN_MEMORY = 2**30


def train_vqvae(
    params: Params, data: Layout, *, tracker: Tracker | None = None, each: Map = map
) -> Metrics:
    """Publish data/vqvae and register it. Returns the last epoch's terms and codebook figures."""
    tracker = tracker or NullTracker()
    settings = params.train_vqvae
    volumes = data.need("volumes")
    identity = Identity(
        "train_vqvae",
        FORMAT_VERSION,
        {"seed": params.seed, "train_vqvae": settings.model_dump(mode="json")},
        {"volumes": digest(volumes)},
    )
    with publishing(data.output("vqvae"), data.work, identity) as work:
        store = VolumeStore(volumes)
        torch.manual_seed(params.seed)
        arguments = vqvae_arguments(
            settings,
            spatial_dims=len(store.shape) - 1,
            in_channels=store.shape[0] - (store.num_classes > 0),
            num_classes=store.num_classes,
        )
        model = VQVAE(**arguments).to(choose_device())
        history = _fit(params, model, store, work.state, tracker)
        about = {
            "shape": list(store.shape),
            "spacing": list(store.spacing),
            "orientation": store.orientation,
            "channels": [asdict(channel) for channel in store.channels],
            "volumes": identity.inputs["volumes"],
        }
        write_model(work.out, model, arguments, about)
        replace_file(work.out / HISTORY, (json.dumps(history) + "\n").encode())
    tracker.model(REGISTERED, {"vqvae": data.output("vqvae")})
    return {key: value for key, value in history[-1].items() if key != "step"}


def _fit(
    params: Params, model: VQVAE, store: VolumeStore, checkpoints: Path, tracker: Tracker
) -> list[Metrics]:
    """Train the model in place on the training volumes; its history."""
    settings = params.train_vqvae
    records = store.of_split(TRAIN)
    device = next(model.parameters()).device
    read = _reader(store, records)
    usage = Usage(model.map_names, model.num_embeddings)

    def batch(step: int) -> list[int]:
        return batch_indices(step, settings.batch_size, len(records), params.seed)

    def terms(step: int) -> Mapping[str, Tensor]:
        inputs = torch.from_numpy(read(batch(step))).to(device)
        with mixed_precision(device):
            reconstruction = model(inputs)
        usage.add(reconstruction.codes)
        return objective(reconstruction, inputs)

    return fit(
        Task(
            name="train_vqvae",
            model=model,
            terms=terms,
            subjects=lambda step: [records[i].subject for i in batch(step)],
            epoch=lambda step: usage.take(),
        ),
        adamw(model, settings.weight_decay),
        warmup_cosine(settings.learning_rate, settings.warmup, settings.steps),
        steps=settings.steps,
        steps_per_epoch=epoch_steps(len(records), settings.batch_size),
        seed=params.seed,
        checkpoints=checkpoints,
        tracker=tracker,
    )


def _reader(store: VolumeStore, records: Sequence[Record]) -> Callable[[Sequence[int]], np.ndarray]:
    """Volumes of some of the records: from memory where all fit well, else from the store."""
    if len(records) * int(np.prod(store.shape)) * 4 > _BYTES_IN_MEMORY:
        return lambda chosen: store.read([records[i] for i in chosen])
    volumes = store.read(records)
    return lambda chosen: volumes[list(chosen)]
