"""What the model card and the datasheet say, gathered from a run."""

import json
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from torch import nn

from vqmri.evaluation.report.cards import NOT_STATED, CardFacts, Metric
from vqmri.outputs import Manifest
from vqmri.params import Params
from vqmri.prior.covariates import Continuous
from vqmri.protocols import Metrics
from vqmri.scans.dataset import covariates, size
from vqmri.scans.split import HELD_OUT, TRAIN
from vqmri.stages.findings import Found
from vqmri.stages.meanings import meaning
from vqmri.stages.opened import Opened
from vqmri.training.model_folder import DESCRIPTION

_SAID_BY = ("_low", "_high", "_fooled_by")  # of another figure; the cards show them beside it


def card_facts(
    params: Params, opened: Opened, found: Found, inputs: Mapping[str, str]
) -> CardFacts:
    """inputs: sha256 of the manifest of everything that was evaluated."""
    store, generator = opened.volumes, opened.generator
    sizes = {side: size(opened.records(side)) for side in (TRAIN, HELD_OUT)}
    settings = opened.samples.attributes["sample"]
    maps = zip(opened.codes.maps, opened.codes.attributes["downsamplings"], strict=True)
    return CardFacts(
        name="vqmri-generator",
        version=version("vqmri"),
        fingerprints=inputs,
        source=_source(opened.folders["volumes"]),
        scans={side: counted["scans"] for side, counted in sizes.items()},
        subjects={side: counted["subjects"] for side, counted in sizes.items()},
        shape=store.shape[1:],
        spacing=store.spacing,
        channels=[channel.name for channel in store.channels],
        covariates={name: _covariate(about) for name, about in covariates(store.records).items()},
        licence=params.evaluate.licence or NOT_STATED,
        kinds={
            "autoencoder": f"VQ-VAE, quantizer {_quantizer(opened.folders['vqvae'])}",
            "prior": "PixelCNN over the codes",
        },
        parameters={"autoencoder": _size(generator.vqvae), "prior": _size(generator.prior)},
        levels=[(factor, m.num_embeddings) for m, factor in maps if m.num_embeddings],
        bits_per_voxel=found.metrics["bits_per_voxel"],
        conditions=[_condition(covariate) for covariate in generator.prior.covariates],
        temperature=settings["temperature"],
        samples=opened.samples.count,
        asked={name: _asked(value) for name, value in settings["covariates"].items()},
        layout="BIDS derivative, NIfTI" if store.spacing else "one file in MNIST's format",
        metrics=_metrics(found.metrics),
        gates=found.verdicts,
        findings=found.privacy.findings,
    )


def _source(volumes: Path) -> str:
    """The kind that the scans were read as; params.yaml may leave it open, or have changed."""
    kind: str = Manifest.read(volumes).provenance["params"]["ingest"]["source"]["kind"]
    return kind


def _quantizer(vqvae: Path) -> str:
    """The kind that the VQ-VAE was built with."""
    description = json.loads((vqvae / DESCRIPTION).read_text(encoding="utf-8"))
    kind: str = description["arguments"]["quantizer"]["kind"]
    return kind


def _size(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def _covariate(about: Mapping[str, Any]) -> str:
    missing = f", {about['missing']} missing" if about["missing"] else ""
    if "counts" in about:
        counts = ", ".join(f"{value}: {count}" for value, count in about["counts"].items())
        return counts + missing
    return f"{about['min']:g} to {about['max']:g}, median {about['median']:g}{missing}"


def _condition(covariate: Any) -> str:
    if isinstance(covariate, Continuous):
        return f"{covariate.name} ({covariate.minimum:g} to {covariate.maximum:g})"
    return f"{covariate.name} ({', '.join(covariate.values)})"


def _asked(value: Any) -> str:
    return ", ".join(map(str, value)) + ", in turns" if isinstance(value, list) else str(value)


def _metrics(metrics: Metrics) -> dict[str, Metric]:
    return {
        name: (value, meaning(name), metrics.get(f"{name}_low"), metrics.get(f"{name}_high"))
        for name, value in sorted(metrics.items())
        if not name.endswith(_SAID_BY)
    }
