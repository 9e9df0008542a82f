"""A data set's numbers → values of params.yaml: what suits scans of that size and number."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from vqmri.codes import bits_per_position
from vqmri.errors import InputError, ParamsError
from vqmri.params import IdxSource, ImagesSource, Params, Projected, TrainVQVAE

COVERED = "p95"
"""Of the scans' extents along an axis, what the volumes cover."""

TOKENS_PER_CODE = 30
"""A code of the codebook wants at least so many of the training volumes' latents."""

_MOST_EMBEDDINGS = {4: 256, 8: 1024, 16: 2048}
_MANY_SCANS = 1000  # to train on; from here on every codebook is twice as large
_FEW_SCANS = 200  # of fewer a prior learns the coarsest level alone; finer codes would be noise
_FEWEST_EMBEDDINGS = 16
_RADIUS, _FEWEST_LAYERS, _MOST_LAYERS = 2, 5, 10


@dataclass(frozen=True)
class Scans:
    """What `dataset.json` says of the scans.

    number: that are trained on
    extent: mm along x, y, z that covers nearly all; of their foreground, if it is cropped about
    spacing: mm, of cubic voxels as large as those of the scans
    """

    number: int
    extent: tuple[float, ...]
    spacing: float


@dataclass(frozen=True)
class Scale:
    """What suits volumes of up to `voxels` of the size of the scans."""

    voxels: float
    downsamplings: tuple[int, ...]
    channels: tuple[int, ...]
    num_res_blocks: tuple[int, ...]
    embedding_dim: int
    batch_size: int
    learning_rate: float
    items_per_shard: int


SCALES = (
    Scale(64**3, (4,), (64, 64), (0, 9), 32, 4, 0.002, 16),
    Scale(128**3, (4, 8), (32, 64, 96), (0, 4, 4), 32, 2, 0.002, 4),
    Scale(math.inf, (8, 16), (32, 64, 128, 128), (1, 2, 4, 4), 64, 2, 0.002, 4),
)


def scans_of(params: Params, dataset: Mapping[str, Any]) -> Scans:
    """ParamsError for pictures; InputError when dataset.json is of an earlier version."""
    if isinstance(params.ingest.source, IdxSource | ImagesSource):
        kind = params.ingest.source.kind
        raise ParamsError(
            f"ingest.source.kind = {kind!r}: `vqmri plan` is for volumes; for pictures start from "
            "`vqmri init --preset mnist` or cifar10."
        )
    try:
        raw = dataset["raw"]
        extents, spacings = raw["ras_extent"], raw["ras_spacing"]
        if params.ingest.foreground_crop and raw["foreground_extent"]:
            extents = raw["foreground_extent"]
        return Scans(
            number=int(dataset["splits"]["train"]["scans"]),
            extent=tuple(float(axis[COVERED]) for axis in extents),
            spacing=rounded(math.prod(axis["median"] for axis in spacings) ** (1 / 3)),
        )
    except KeyError as error:
        raise InputError(
            f"dataset.json does not say {error}: it is of an earlier version. Make it again with "
            "`vqmri ingest`."
        ) from None


def rounded(spacing: float) -> float:
    """To hundredths of a millimetre, and tenths where these are near: 1.003 is 1."""
    tenths = round(spacing, 1)
    near = tenths > 0 and abs(spacing / tenths - 1) < 0.01
    return tenths if near else max(round(spacing, 2), 0.01)


def proposed(params: Params, scans: Scans, spacing: float) -> dict[str, Any]:
    """All of params.yaml for volumes of `spacing` mm; what has nothing to do with size is kept."""
    scale = next(s for s in SCALES if _voxels(scans, spacing) <= s.voxels)
    if scans.number < _FEW_SCANS:
        scale = replace(scale, downsamplings=scale.downsamplings[-1:])
    shape = _shape(scans, spacing, scale.downsamplings[-1])
    values: dict[str, Any] = params.model_dump(mode="json", exclude_unset=True)
    values["ingest"] |= {"spacing": [spacing] * 3, "shape": shape}
    values["train_vqvae"] = _train_vqvae(values["train_vqvae"], scans, scale, shape)
    values["encode"] |= {"items_per_shard": scale.items_per_shard}
    grid = [n // scale.downsamplings[-1] for n in shape]
    varied = values["encode"].get("variations") is not None
    values["train_prior"] = _train_prior(values["train_prior"], scans, scale, max(grid), varied)
    return values


def bits_per_voxel(settings: TrainVQVAE) -> float:
    """Σ over the levels of the bits of a code, and of its gain, by its voxels; without a prior."""
    gain = 0.0
    if isinstance(settings.quantizer, Projected):
        gain = bits_per_position(settings.quantizer.num_gains or 0)
    return sum(
        (bits_per_position(level.num_embeddings) + gain) / level.downsampling**3
        for level in settings.levels
    )


def _voxels(scans: Scans, spacing: float) -> float:
    return math.prod(length / spacing for length in scans.extent)


def _shape(scans: Scans, spacing: float, multiple: int) -> list[int]:
    """No fewer than two codes along an axis; a hundredth of a voxel may be lacking."""
    needed = [length / spacing - 0.01 for length in scans.extent]
    return [max(math.ceil(n / multiple), 2) * multiple for n in needed]


def _train_vqvae(
    before: Mapping[str, Any], scans: Scans, scale: Scale, shape: Sequence[int]
) -> dict[str, Any]:
    after = {
        "channels": list(scale.channels),
        "num_res_blocks": list(scale.num_res_blocks),
        "embedding_dim": scale.embedding_dim,
        "levels": [
            {"downsampling": d, "num_embeddings": _num_embeddings(scans, shape, d)}
            for d in scale.downsamplings
        ],
        "quantizer": {"kind": before["quantizer"]["kind"], **before["quantizer"]},
        **_duration(scans, scale.batch_size, passes=150, fewest=2000, warmup=1 / 30),
        "batch_size": scale.batch_size,
        "learning_rate": scale.learning_rate,
    }
    return after | _kept(before, after, without=("patch", "activation_checkpointing"))


def _num_embeddings(scans: Scans, shape: Sequence[int], downsampling: int) -> int:
    tokens = scans.number * math.prod(n // downsampling for n in shape)
    most = _MOST_EMBEDDINGS[downsampling] * (2 if scans.number >= _MANY_SCANS else 1)
    enough = 2 ** int(math.log2(max(tokens / TOKENS_PER_CODE, 1)))
    return max(min(most, 2048, enough), _FEWEST_EMBEDDINGS)


def _train_prior(
    before: Mapping[str, Any], scans: Scans, scale: Scale, longest: int, varied: bool
) -> dict[str, Any]:
    """Its layers together reach over `longest`, the top map's longest axis."""
    channels, dropout, weight_decay = _regularisation(scans.number, varied)
    radius = max(_RADIUS, math.ceil(longest / _MOST_LAYERS))
    after = {
        "channels": channels,
        "num_layers": max(math.ceil(longest / radius), _FEWEST_LAYERS),
        "kernel": 3,
        "radius": radius,
        "dropout": dropout,
        **_duration(scans, 2 * scale.batch_size, passes=45, fewest=900, warmup=0.055),
        "batch_size": 2 * scale.batch_size,
        "learning_rate": 0.003 if channels < 64 else 0.001,
        "weight_decay": weight_decay,
    }
    return after | _kept(before, after, without=("num_attention", "heads"))


def _regularisation(number: int, varied: bool) -> tuple[int, float, float]:
    """The prior's channels, dropout and weight decay: few scans are soon learned by heart.

    varied: varied copies of them are encoded too
    """
    if varied and number < 10 * _MANY_SCANS:
        return 32, 0.3, 0.05
    if number < _MANY_SCANS:
        return 16, 0.4, 0.3
    return (32, 0.2, 0.1) if number < 10 * _MANY_SCANS else (64, 0.1, 0.05)


def _duration(
    scans: Scans, batch_size: int, *, passes: int, fewest: int, warmup: float
) -> dict[str, int]:
    """Steps for so many passes over the data, from `fewest` to twenty times as many."""
    steps = min(max(scans.number * passes / batch_size, fewest), 20 * fewest)
    steps = math.ceil(steps / 100) * 100
    return {"steps": steps, "warmup": round(min(warmup * steps, 500) / 10) * 10}


def _kept(
    before: Mapping[str, Any], after: Mapping[str, Any], *, without: Sequence[str]
) -> dict[str, Any]:
    dropped = {*after, *without, "micro_batch"}
    return {name: value for name, value in before.items() if name not in dropped}
