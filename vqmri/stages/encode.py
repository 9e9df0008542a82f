"""volumes + vqvae → codes: encode the whole data set."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from json import dumps
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vqmri.build.encode import Variation, variations
from vqmri.codes import CodeMap, CodeWriter, code_maps
from vqmri.errors import IntegrityError
from vqmri.layout import Layout
from vqmri.outputs import Identity, Work, digest, need_space, publishing, replace_file
from vqmri.outputs.arrays import npy
from vqmri.params import Encode, Params
from vqmri.protocols import Map, Metrics, Tracker
from vqmri.scans.split import TRAIN, rows_of
from vqmri.scans.store import VolumeStore
from vqmri.stages.varied import varied
from vqmri.terminal import follow
from vqmri.training.device import choose_device
from vqmri.training.memory import return_large_blocks
from vqmri.training.model_folder import load_model
from vqmri.vqvae import VQVAE
from vqmri.vqvae.residual import fit_residuals

FORMAT_VERSION = 3
_FITTED = 64  # training volumes


@dataclass(frozen=True)
class Shard:
    """One unit of work, in plain values: items `start` to `stop`.

    Items are the volumes' table, and after it the varied copies of training volumes.
    """

    start: int
    stop: int
    seed: int
    settings: dict[str, Any]
    volumes: str
    vqvae: str
    out: str
    state: str


def encode(
    params: Params, data: Layout, *, tracker: Tracker | None = None, each: Map = map
) -> Metrics:
    """Publish data/codes: row i holds the codes of row i of the volumes' table.

    After these rows stand the varied copies of training volumes, if params ask for any.
    IntegrityError when the VQ-VAE was trained on other volumes.
    """
    volumes, vqvae = data.need("volumes"), data.need("vqvae")
    size = params.encode.items_per_shard
    identity = Identity(
        "encode",
        FORMAT_VERSION,
        {"seed": params.seed, "encode": params.encode.model_dump(mode="json")},
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
        varied = variations(params.encode.variations, store.records)
        count = len(store.records) + len(varied)
        grids = [[n // factor for n in store.shape[1:]] for factor in model.downsamplings]
        maps = code_maps(model.map_names, grids, model.num_embeddings)
        need_space(work, _least(count, maps, store))
        writer = CodeWriter(work.out)
        writer.create(count, maps, size)
        shards = _shards(params, count, {"volumes": volumes, "vqvae": vqvae}, work)
        items = sum(follow(each(encode_shard, shards), "encode", len(shards), "shard"))
        residuals = _residuals(store, work.state)
        writer.finish(
            {
                "downsamplings": list(model.downsamplings),
                "vqvae": identity.inputs["vqvae"],
                "vqvae_weights": about["weights"],
                "volumes": identity.inputs["volumes"],
                "spacing": list(store.spacing),
                "shape": list(store.shape),
                "records": [asdict(record) for record in store.records],
                "variations": [asdict(variation) for variation in varied],
                "residuals": residuals,
            }
        )
    return {
        "items": items,
        "variations": len(varied),
        "codes_per_item": sum(int(np.prod(grid)) for grid in grids),
    }


def _shards(params: Params, count: int, inputs: Mapping[str, Path], work: Work) -> list[Shard]:
    size = params.encode.items_per_shard
    return [
        Shard(
            start=start,
            stop=min(start + size, count),
            seed=params.seed,
            settings=params.encode.model_dump(mode="json"),
            volumes=str(inputs["volumes"]),
            vqvae=str(inputs["vqvae"]),
            out=str(work.out),
            state=str(work.state),
        )
        for start in range(0, count, size)
    ]


def encode_shard(shard: Shard) -> int:
    """Encode and write one shard, unless a killed run already did; the number of its items.

    In float32 without autocast, one shard in one batch, so that the codes are the same whoever
    runs it.
    """
    marker = Path(shard.state) / f"items-{shard.start:07d}"
    if not marker.is_file():
        CodeWriter(Path(shard.out)).write_shard(shard.start, _encoded(shard))
        replace_file(marker, b"")
    return shard.stop - shard.start


def _encoded(shard: Shard) -> list[np.ndarray]:
    """Values of each map; the volumes whose residuals are looked at are kept, rebuilt."""
    device = choose_device()
    settings = dumps(shard.settings, sort_keys=True)
    store, varied = _volumes(shard.volumes, digest(Path(shard.volumes)), settings)
    model = _model(shard.vqvae, digest(Path(shard.vqvae)))
    volumes = torch.from_numpy(_read(store, varied, shard))
    with torch.inference_mode():
        codes = model.encode(volumes.to(device))
        for row in set(_fitted(store)) & set(range(shard.start, shard.stop)):
            own = [c[row - shard.start : row - shard.start + 1] for c in codes]
            volume = model.to_volumes(model.decode(own))[0]
            replace_file(_rebuilt(Path(shard.state), row), npy(volume.cpu().numpy()))
    return [c.cpu().numpy() for c in codes]


@lru_cache(maxsize=1)
def _volumes(folder: str, digest: str, settings: str) -> tuple[VolumeStore, list[Variation]]:
    """The table, which takes seconds to read, and the copies to make: once in a process."""
    store = VolumeStore(Path(folder))
    return store, variations(Encode.model_validate_json(settings).variations, store.records)


@lru_cache(maxsize=1)
def _model(folder: str, digest: str) -> VQVAE:
    """Loaded and checked once in a process, however many shards it encodes."""
    return_large_blocks()  # Dask's workers give all back at once, and fetch it half their time
    return load_model(Path(folder), VQVAE)[0].to(choose_device())


def _least(count: int, maps: Sequence[CodeMap], store: VolumeStore) -> int:
    """Bytes: codes that compress by half, and the volumes that are kept until the noise is fit."""
    codes = sum(int(np.prod(one.grid)) * one.dtype.itemsize for one in maps)
    return count * codes // 2 + len(_fitted(store)) * int(np.prod(store.shape)) * 4


def _fitted(store: VolumeStore) -> list[int]:
    """Rows of the training volumes whose residuals are looked at."""
    train = rows_of(store.records, TRAIN)
    return [train[i] for i in np.linspace(0, len(train) - 1, min(len(train), _FITTED), dtype=int)]


def _rebuilt(state: Path, row: int) -> Path:
    return state / f"rebuilt-{row:07d}.npy"


def _residuals(store: VolumeStore, state: Path) -> list[dict[str, Any]]:
    """What the codes of training volumes leave out, as noise that samples can be given."""

    def pairs() -> Iterator[tuple[np.ndarray, np.ndarray]]:
        for row in _fitted(store):
            yield store.read([store.records[row]])[0], np.load(_rebuilt(state, row))

    return fit_residuals(pairs, store.num_images)


def _read(store: VolumeStore, every: Sequence[Variation], shard: Shard) -> np.ndarray:
    """The volumes of a shard, the last of them varied."""
    count = len(store.records)
    plain = store.records[shard.start : min(shard.stop, count)]
    numbers = range(max(shard.start - count, 0), max(shard.stop - count, 0))
    settings = Encode.model_validate(shard.settings).variations
    if settings is None or not numbers:
        return store.read(plain)
    copies = varied(store, settings, shard.seed, [every[i] for i in numbers], numbers)
    return np.concatenate([store.read(plain), copies]) if plain else copies
