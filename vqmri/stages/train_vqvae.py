"""volumes → vqvae: train the autoencoder."""

import json
from collections.abc import Mapping
from pathlib import Path

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
from vqmri.training.batches import batch_indices
from vqmri.training.device import choose_device, mixed_precision
from vqmri.training.loop import Task, fit
from vqmri.training.model_folder import HISTORY, write_model
from vqmri.training.optim import adamw, warmup_cosine
from vqmri.vqvae import VQVAE, objective

FORMAT_VERSION = 1
REGISTERED = "vqmri-vqvae"


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
            settings, spatial_dims=len(store.shape) - 1, in_channels=store.shape[0]
        )
        model = VQVAE(**arguments).to(choose_device())
        history = _fit(params, model, store, work.state, tracker)
        about = {
            "shape": list(store.shape),
            "spacing": list(store.spacing),
            "orientation": "RAS",
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
    usage = Usage(model.num_embeddings)

    def batch(step: int) -> list[Record]:
        chosen = batch_indices(step, settings.batch_size, len(records), params.seed)
        return [records[i] for i in chosen]

    def terms(step: int) -> Mapping[str, Tensor]:
        inputs = torch.from_numpy(store.read(batch(step))).to(device)
        with mixed_precision(device):
            reconstruction = model(inputs)
        usage.add(reconstruction.codes)
        return objective(reconstruction, inputs)._asdict()

    return fit(
        Task(
            name="train_vqvae",
            model=model,
            terms=terms,
            subjects=lambda step: [record.subject for record in batch(step)],
            epoch=lambda step: usage.take(),
        ),
        adamw(model, settings.weight_decay),
        warmup_cosine(settings.learning_rate, settings.warmup, settings.steps),
        steps=settings.steps,
        steps_per_epoch=-(-len(records) // settings.batch_size),
        seed=params.seed,
        checkpoints=checkpoints,
        tracker=tracker,
    )
