"""What a data set and a device allow: a params.yaml that runs, and what it will take."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from vqmri.build.plan import Scans, bits_per_voxel, proposed, scans_of
from vqmri.build.train_prior import prior_arguments
from vqmri.build.train_vqvae import augmentation_arguments, vqvae_arguments
from vqmri.errors import ParamsError
from vqmri.layout import Layout
from vqmri.params import PARAMS, Params
from vqmri.params.writing import write_params
from vqmri.scans.quality import DATASET
from vqmri.scans.store import VolumeStore
from vqmri.stages.train_vqvae import BYTES_IN_MEMORY
from vqmri.training.augment import Augmentation
from vqmri.training.batches import PARTS_AHEAD
from vqmri.training.device import choose_device
from vqmri.training.footprint import (
    Footprint,
    multiply_adds_per_second,
    prior_footprint,
    vqvae_footprint,
)
from vqmri.training.memory import GIB, total_memory
from vqmri.vqvae import VQVAE

USABLE = 0.9
"""Of the device's memory."""

VQVAE_STAGE, PRIOR_STAGE = "train_vqvae", "train_prior"
PROCESS = {
    "cpu": {VQVAE_STAGE: 720 * 2**20, PRIOR_STAGE: 570 * 2**20},
    "cuda": {VQVAE_STAGE: 600 * 2**20, PRIOR_STAGE: 600 * 2**20},
}
"""Bytes in the device's memory before anything is trained.

On the CPU the process with its imports, measured: 670 to 765 MiB in three runs of `train_vqvae`,
and 560 of `train_prior`, which has no use for MONAI. On CUDA the context, taken from what is usual
and not measured.
"""

_RELIEFS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("", {}),
    ("micro_batch 1", {"micro_batch": 1}),
    (
        "micro_batch 1 and activation_checkpointing",
        {"micro_batch": 1, "activation_checkpointing": True},
    ),
)
_COARSER = (1.0, 1.25, 1.5, 2.0, 2.5, 3.0, 4.0)


@dataclass(frozen=True)
class Forecast:
    """What a training will take. memory: bytes on the device; seconds: of one step."""

    stage: str
    memory: int
    parameters: int
    seconds: float
    steps: int


@dataclass(frozen=True)
class Planned:
    """A params.yaml and what it will take.

    values: as the file has them; params: the same, checked
    available: bytes of memory; reliefs: what had to be lowered, and for what figure
    """

    values: Mapping[str, Any]
    params: Params
    scans: Scans
    forecasts: tuple[Forecast, ...]
    device: str
    available: int
    reliefs: tuple[str, ...]


def plan(
    params: Params, data: Layout, *, spacing: float | None = None, memory: float | None = None
) -> Planned:
    """Values for the scans that were ingested; nothing is written.

    spacing: mm; None: that of the scans, or as much coarser as the memory wants
    memory: GiB that there are; None: those of the device that are usable
    ParamsError for pictures, and when the memory is too small even for the last resort.
    """
    scans = scans_of(params, _dataset(data))
    store = VolumeStore(data.need("volumes"))
    device = choose_device()
    available = round(memory * GIB if memory else USABLE * total_memory(device))
    spacings = [spacing] if spacing else [round(scans.spacing * c, 2) for c in _COARSER]
    tried: list[str] = []
    for size in spacings:
        for relief, changes in _RELIEFS:
            values = proposed(params, scans, size)
            values["train_vqvae"] |= changes
            wanted = Params.model_validate(values)
            needs = _vqvae_needs(wanted, store, device)
            total = _in_all(needs, wanted, scans, store, device)
            if total > available:
                tried.append(f"{size:g} mm{', ' * bool(relief)}{relief}: {total / GIB:.2f} GiB")
                continue
            prior = _prior(values, store, device, available)
            least = PROCESS[device.type][PRIOR_STAGE] + prior.memory
            if least > available:
                tried.append(f"{size:g} mm, {PRIOR_STAGE} with one item: {least / GIB:.2f} GiB")
                break
            checked = Params.model_validate(values)
            forecasts = _forecasts(checked, (needs, prior), total, store, device)
            return Planned(values, checked, scans, forecasts, device.type, available, tuple(tried))
    lines = "\n".join(f"  {line}" for line in tried)
    raise ParamsError(
        f"nothing fits into {available / GIB:.2f} GiB of {device.type} memory. What "
        f"would be needed:\n{lines}\n"
        "Ask for a coarser --spacing, or run on a device with more memory (--memory says how much)."
    )


def write(planned: Planned, root: Path) -> str:
    """Write params.yaml; the old one is kept beside it. Returns what to tell the user."""
    old = write_params(root / PARAMS, as_yaml(planned))
    kept = f"; what it was is in {old.name}" if old else ""
    return f"{PARAMS} is written{kept}. Go on with `vqmri ingest`."


def as_yaml(planned: Planned) -> str:
    """The text of params.yaml, with a line on top of what it was planned for."""
    needs = max(forecast.memory for forecast in planned.forecasts) / GIB
    head = (
        f"# Planned by `vqmri plan` for {planned.scans.number} training scans on "
        f"{planned.device}: up to {needs:.1f} GiB of memory.\n"
    )
    sections = [
        yaml.dump({name: value}, Dumper=_Readable, sort_keys=False, allow_unicode=True, width=100)
        for name, value in planned.values.items()
    ]
    return head + "\n".join(sections)


def as_text(planned: Planned) -> str:
    """What is proposed, in words."""
    ingest, vqvae = planned.params.ingest, planned.params.train_vqvae
    assert ingest.spacing is not None
    levels = ", ".join(f"{x.num_embeddings} codes at ÷{x.downsampling}" for x in vqvae.levels)
    extent = " × ".join(f"{length:.0f}" for length in planned.scans.extent)
    lines = [
        f"{planned.scans.number} scans to train on, nearly all within {extent} mm; "
        f"{planned.available / GIB:.1f} GiB of {planned.device} memory",
        f"spacing {ingest.spacing[0]:g} mm, shape {' × '.join(map(str, ingest.shape))}",
        f"{levels}: {bits_per_voxel(vqvae):.4f} bits per voxel before the prior",
        *(f"does not fit: {relief}" for relief in planned.reliefs),
    ]
    return "\n".join(lines)


COLUMNS = ("stage", "what", "memory", "a step", "in all")


def rows(planned: Planned) -> list[tuple[str, ...]]:
    """Of the table of forecasts."""
    found = []
    for forecast in planned.forecasts:
        section = getattr(planned.params, forecast.stage)
        what = f"{forecast.parameters / 1e6:.1f} M weights, batch {section.batch_size}"
        if section.micro_batch:
            what += f" by {section.micro_batch}"
        if getattr(section, "activation_checkpointing", False):
            what += ", checkpointing"
        times = (forecast.seconds, forecast.seconds * forecast.steps)
        memory = f"{forecast.memory / GIB:.2f} GiB"
        found.append((forecast.stage, what, memory, *map(_duration, times)))
    return found


def as_values(planned: Planned) -> dict[str, Any]:
    """All of it for a program; memory in bytes, times in seconds."""
    return {
        "params": planned.values,
        "device": planned.device,
        "available": planned.available,
        "does_not_fit": list(planned.reliefs),
        "forecasts": [asdict(forecast) for forecast in planned.forecasts],
    }


def _dataset(data: Layout) -> Mapping[str, Any]:
    """{} where there is none, as with pictures."""
    path = data.need("volumes") / DATASET
    return json.loads(path.read_bytes()) if path.is_file() else {}


def _arguments(params: Params, store: VolumeStore) -> dict[str, Any]:
    return vqvae_arguments(
        params.train_vqvae,
        spatial_dims=3,
        in_channels=store.num_images,
        num_classes=store.num_classes,
    )


def _vqvae_needs(params: Params, store: VolumeStore, device: torch.device) -> Footprint:
    settings = params.train_vqvae
    return vqvae_footprint(
        _arguments(params, store),
        space=params.ingest.shape,
        batch_size=settings.batch_size,
        micro_batch=settings.micro_batch,
        checkpointing=settings.activation_checkpointing,
        averaged=settings.average_decay is not None,
        device=device,
        spectral_cost=settings.spectral_cost,
        adversarial_cost=settings.adversarial_cost,
    )


def _in_all(
    needs: Footprint, params: Params, scans: Scans, store: VolumeStore, device: torch.device
) -> int:
    """Bytes of the device's memory: on the CPU the volumes lie there too."""
    total = PROCESS[device.type][VQVAE_STAGE] + needs.memory
    if device.type == "cpu":
        volume = 4 * store.shape[0] * torch.Size(params.ingest.shape).numel()
        kept = scans.number * volume
        settings = params.train_vqvae
        part = (settings.micro_batch or settings.batch_size) * volume
        total += (kept if kept <= BYTES_IN_MEMORY else 0) + PARTS_AHEAD * part
    return total


def _prior(
    values: dict[str, Any], store: VolumeStore, device: torch.device, available: int
) -> Footprint:
    """What the prior needs, for as much of its batch at a time as fits; that is put into `values`.

    Where not even one item fits: for one.
    """
    size = values["train_prior"]["batch_size"]
    while True:
        params = Params.model_validate(values)
        needs = _prior_needs(params, store, device)
        if size == 1 or PROCESS[device.type][PRIOR_STAGE] + needs.memory <= available:
            return needs
        size //= 2
        values["train_prior"]["micro_batch"] = size


def _prior_needs(params: Params, store: VolumeStore, device: torch.device) -> Footprint:
    settings = params.train_prior
    with torch.device("meta"):
        vqvae = VQVAE(**_arguments(params, store))
    grids = [[n // factor for n in params.ingest.shape] for factor in vqvae.downsamplings]
    arguments = prior_arguments(
        settings, grids=grids, num_embeddings=vqvae.num_embeddings, covariates=[]
    )
    return prior_footprint(
        arguments,
        batch_size=settings.batch_size,
        micro_batch=settings.micro_batch,
        averaged=settings.average_decay is not None,
        device=device,
    )


def _forecasts(
    params: Params,
    needs: Sequence[Footprint],
    memory: int,
    store: VolumeStore,
    device: torch.device,
) -> tuple[Forecast, ...]:
    """Of both trainings; memory: bytes that the VQ-VAE's takes in all."""
    rate = multiply_adds_per_second(device)
    vqvae, prior = needs
    own = PROCESS[device.type][PRIOR_STAGE]
    vary = params.train_vqvae.batch_size * _seconds_to_vary(params, store, device)
    trainings = ((VQVAE_STAGE, vqvae, memory, vary), (PRIOR_STAGE, prior, own + prior.memory, 0.0))
    return tuple(
        Forecast(
            stage,
            memory=total,
            parameters=one.parameters,
            seconds=one.multiply_adds / rate + more,
            steps=getattr(params, stage).steps,
        )
        for stage, one, total, more in trainings
    )


def _seconds_to_vary(params: Params, store: VolumeStore, device: torch.device) -> float:
    """One volume; measured the second time, when what is loaded once is there."""
    settings = params.train_vqvae
    if settings.augment is None:
        return 0.0
    options = augmentation_arguments(settings.augment, spacing=params.ingest.spacing or ())
    vary = Augmentation(device=device, labelled=store.num_classes > 0, **options)
    volume = torch.zeros(1, store.shape[0], *params.ingest.shape, device=device)
    for seed in range(2):
        start = time.perf_counter()
        float(vary(volume, [seed]).sum())  # waits for the device
        seconds = time.perf_counter() - start
    return seconds


def _duration(seconds: float) -> str:
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.2g} s"


class _Readable(yaml.SafeDumper):
    """Lists of plain values on one line; all else below one another."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        super().increase_indent(flow, False)


def _list(dumper: yaml.SafeDumper, values: list[Any]) -> yaml.Node:
    plain = not any(isinstance(value, dict | list) for value in values)
    return dumper.represent_sequence("tag:yaml.org,2002:seq", values, flow_style=plain)


_Readable.add_representer(list, _list)
