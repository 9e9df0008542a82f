"""volumes + vqvae → codes: encode the whole data set."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from tqdm import tqdm

from vqmri.codes import CodeWriter, code_maps
from vqmri.errors import IntegrityError
from vqmri.layout import Layout
from vqmri.outputs import Identity, publishing, replace_file
from vqmri.outputs.manifest import digest
from vqmri.params import Params
from vqmri.protocols import Map, Metrics, Tracker
from vqmri.scans.store import VolumeStore
from vqmri.training.device import choose_device
from vqmri.training.model_folder import load_model
from vqmri.vqvae import VQVAE

FORMAT_VERSION = 2


@dataclass(frozen=True)
class Shard:
    """One unit of work, in plain values: items `start` to `stop` of the table."""

    start: int
    stop: int
    volumes: str
    vqvae: str
    out: str
    state: str


def encode(
    params: Params, data: Layout, *, tracker: Tracker | None = None, each: Map = map
) -> Metrics:
    """Publish data/codes: row i holds the codes of row i of the volumes' table."""
    volumes, vqvae = data.need("volumes"), data.need("vqvae")
    size = params.encode.items_per_shard
    identity = Identity(
        "encode",
        FORMAT_VERSION,
        {"encode": params.encode.model_dump(mode="json")},
        {"volumes": digest(volumes), "vqvae": digest(vqvae)},
    )
    with publishing(data.output("codes"), data.work, identity) as work:
        store = VolumeStore(volumes)
        model, about = load_model(vqvae, VQVAE)
        if about["volumes"] != identity.inputs["volumes"]:
            raise IntegrityError(
                f"{vqvae} was trained on other volumes ({about['volumes'][:16]}) than those in "
                f"{volumes} ({identity.inputs['volumes'][:16]}). Train it again with "
                "`vqmri train_vqvae`."
            )
        count = len(store.records)
        grids = [[n // factor for n in store.shape[1:]] for factor in model.downsamplings]
        writer = CodeWriter(work.out)
        writer.create(count, code_maps(model.map_names, grids, model.num_embeddings), size)
        shards = [
            Shard(
                start=start,
                stop=min(start + size, count),
                volumes=str(volumes),
                vqvae=str(vqvae),
                out=str(work.out),
                state=str(work.state),
            )
            for start in range(0, count, size)
        ]
        items = sum(tqdm(each(encode_shard, shards), "encode", len(shards), unit="shard"))
        writer.finish(
            {
                "downsamplings": list(model.downsamplings),
                "vqvae": identity.inputs["vqvae"],
                "vqvae_weights": about["weights"],
                "volumes": identity.inputs["volumes"],
                "spacing": list(store.spacing),
                "shape": list(store.shape),
                "records": [asdict(record) for record in store.records],
            }
        )
    return {"items": items, "codes_per_item": _codes_per_item(grids)}


def encode_shard(shard: Shard) -> int:
    """Encode and write one shard, unless a killed run already did; the number of its items.

    In float32 without autocast, one shard in one batch, so that the codes are the same whoever
    runs it.
    """
    marker = Path(shard.state) / f"items-{shard.start:07d}"
    if not marker.is_file():
        device = choose_device()
        store = VolumeStore(Path(shard.volumes))
        model = load_model(Path(shard.vqvae), VQVAE)[0].to(device)
        volumes = torch.from_numpy(store.read(store.records[shard.start : shard.stop]))
        with torch.inference_mode():
            codes = model.encode(volumes.to(device))
        CodeWriter(Path(shard.out)).write_shard(shard.start, [c.cpu().numpy() for c in codes])
        replace_file(marker, b"")
    return shard.stop - shard.start


def _codes_per_item(grids: Sequence[Sequence[int]]) -> int:
    return sum(int(torch.Size(grid).numel()) for grid in grids)
