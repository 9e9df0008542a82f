"""vqvae + prior → samples: draw codes, decode them, write scans in a BIDS-derivative layout.

Pictures (2D) become one file of MNIST's format, as they may have come in one.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vqmri.build.sample import choice
from vqmri.codes import CodeWriter, code_maps
from vqmri.errors import ParamsError
from vqmri.layout import Layout
from vqmri.outputs import Identity, Manifest, need_space, publishing, replace_file
from vqmri.outputs.arrays import npy
from vqmri.outputs.manifest import MANIFEST, digest
from vqmri.outputs.reading import understood
from vqmri.params import Params, Sample
from vqmri.prior.covariates import encode
from vqmri.protocols import Map, Metrics, Tracker
from vqmri.scans import bids, idx
from vqmri.scans.table import tsv
from vqmri.scans.volume import Channel
from vqmri.terminal import progress
from vqmri.training.generator import Generator

FORMAT_VERSION = 6
_COMPRESSED_AT_MOST = 8  # times; brains without skull and noise come near it
IMAGES, TABLE = "images.idx.gz", "samples.tsv"


@dataclass(frozen=True)
class Batch:
    """One unit of work, in plain values: the samples of one micro-batch, `numbers` of them."""

    number: int
    numbers: Sequence[int]
    settings: dict[str, Any]
    vqvae: str
    prior: str
    out: str
    state: str


def sample(
    params: Params,
    data: Layout,
    *,
    tracker: Tracker | None = None,
    each: Map = map,
    out: Path | None = None,
) -> Metrics:
    """Publish data/samples, or `out`: the synthetic scans, and the codes they were decoded from.

    Sample i depends on (seed, i, its covariates, model) alone. Raises ParamsError, before anything
    is drawn, for covariates that the prior does not know, and for an `out` that is not to be
    replaced.
    """
    if out is not None:
        if data.is_own(out, params.ingest.raw) or data.data.resolve().is_relative_to(out.resolve()):
            raise ParamsError(f"--out {out}: that folder is the project's own. Name another.")
        may_replace(out)
    target = out or data.output("samples")
    return publish_samples(params.sample, data.need("vqvae"), data.need("prior"), target, each)


def publish_samples(settings: Sample, vqvae: Path, prior: Path, target: Path, each: Map) -> Metrics:
    """Publish `target`, drawn from two model folders.

    Raises ParamsError for covariates that the prior does not know, and for guidance without any.
    """
    identity = Identity(
        "sample",
        FORMAT_VERSION,
        {"sample": settings.model_dump(mode="json")},
        {"vqvae": digest(vqvae), "prior": digest(prior)},
    )
    generator = Generator(vqvae, prior)
    _check_description(vqvae, generator.about)
    rows = [covariates_of(settings, number) for number in range(settings.count)]
    encode(generator.prior.covariates, rows, extrapolate=settings.extrapolate)
    if settings.guidance != 1 and not any(rows):
        raise ParamsError(
            f"sample: guidance = {settings.guidance} strengthens covariates, and none is asked "
            "for. Name some (--covariate NAME=VALUE, or sample: covariates:), or leave it at 1."
        )
    with publishing(target, target.parent / ".work", identity) as work:
        voxels = int(np.prod(generator.about["shape"]))
        need_space(work, settings.count * voxels * 4 // _COMPRESSED_AT_MOST)
        writer = CodeWriter(work.out)
        size = generator.micro_batch
        model = generator.vqvae
        maps = code_maps(model.map_names, generator.prior.grids, model.num_embeddings)
        writer.create(settings.count, maps, size)
        batches = [
            Batch(
                number=start // size,
                numbers=list(range(start, min(start + size, settings.count))),
                settings=settings.model_dump(mode="json"),
                vqvae=str(vqvae),
                prior=str(prior),
                out=str(work.out),
                state=str(work.state),
            )
            for start in range(0, settings.count, size)
        ]
        with progress("sample", settings.count, "sample") as bar:
            for done in each(sample_batch, batches):
                bar.advance(done)
        writer.finish(
            {
                "downsamplings": list(model.downsamplings),
                "vqvae_weights": generator.about["weights"],
                "prior_weights": generator.prior_about["weights"],
                "covariates": rows,
                "sample": settings.model_dump(mode="json"),
            }
        )
        _describe(work.out, work.state, generator, rows)
    return {"samples": settings.count}


def _check_description(vqvae: Path, about: Mapping[str, Any]) -> None:
    """IntegrityError for a model that does not say what its volumes are, or not so as to be used.

    The channels' names become names of files.
    """
    with understood(vqvae, "Make it again with `vqmri train_vqvae`."):
        channels = _channels(about)
        if wrong := [channel.name for channel in channels if not bids.is_name(channel.name)]:
            raise ValueError(f"a channel is called {wrong[0]!r:.99}")
        axes = len(about["spacing"]) or 2
        if len(about["shape"]) != 1 + axes or about["shape"][0] != len(channels):
            raise ValueError(f"shape {about['shape']} of {len(channels)} channels")


def _channels(about: Mapping[str, Any]) -> list[Channel]:
    return [Channel(c["name"], tuple(c["label_values"])) for c in about["channels"]]


def may_replace(out: Path) -> None:
    """ParamsError for a folder that holds anything but samples."""
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return
    samples = out.is_dir() and (out / MANIFEST).is_file()
    if not samples or Manifest.read(out).provenance.get("stage") != "sample":
        raise ParamsError(
            f"--out {out} exists and holds no samples; it would be replaced. Name another folder."
        )


def covariates_of(settings: Sample, number: int) -> dict[str, Any]:
    """Covariates of one sample; a list is gone through sample by sample, and then anew."""
    return {
        name: value[number % len(value)] if isinstance(value, list) else value
        for name, value in settings.covariates.items()
    }


def sample_batch(batch: Batch) -> int:
    """Draw, decode and write one micro-batch, unless a killed run already did; how many it has."""
    marker = Path(batch.state) / f"batch-{batch.number:05d}.npy"  # of pictures it holds them
    if not marker.is_file():
        replace_file(marker, _draw(batch))
    return len(batch.numbers)


def _draw(batch: Batch) -> bytes:
    """Draw and write one micro-batch; the bytes of its marker."""
    generator = Generator(Path(batch.vqvae), Path(batch.prior))
    settings, numbers = Sample.model_validate(batch.settings), batch.numbers
    slots = range(numbers[0], numbers[0] + generator.micro_batch)
    rows = [covariates_of(settings, number) for number in slots]
    known = encode(generator.prior.covariates, rows, extrapolate=settings.extrapolate)
    positions = sum(int(np.prod(grid)) for grid in generator.prior.grids)
    title = f"samples {numbers[0]}-{numbers[-1]}"
    with progress(title, len(numbers), "sample", inner=True) as bar:
        codes = generator.draw(
            settings.seed,
            batch.number,
            choice(settings),
            rows=known,
            progress=lambda done: bar.advance(len(numbers) * done / positions),
        )
    volumes = generator.decode(codes, number=len(numbers))
    if settings.residual:
        volumes = generator.with_residuals(volumes, settings.seed, numbers)
    drawn = [values[: len(numbers)].cpu().numpy() for values in codes]
    CodeWriter(Path(batch.out)).write_shard(numbers[0], drawn)
    if volumes.ndim == 4:
        return npy(np.round(volumes * 255).astype(np.uint8))
    for number, volume in zip(numbers, volumes, strict=True):
        _write_scan(Path(batch.out), number, volume, generator, settings)
    return b""


def _write_scan(
    folder: Path, number: int, volume: np.ndarray, generator: Generator, settings: Sample
) -> None:
    about = {
        "Seed": settings.seed,
        "Number": number,
        "Temperature": settings.temperature,
        "TopK": settings.top_k,
        "TopP": settings.top_p,
        "Guidance": settings.guidance,
        "Residual": settings.residual,
        "VQVAEWeights": generator.about["weights"],
        "PriorWeights": generator.prior_about["weights"],
        "Covariates": covariates_of(settings, number),
        "SkullStripped": generator.about.get("stripped", False),
    }
    channels, spacing = _channels(generator.about), generator.about["spacing"]
    bids.write_scan(folder, _label(number), settings.suffix, volume, channels, spacing, about)


def _describe(
    folder: Path, state: Path, generator: Generator, rows: Sequence[Mapping[str, Any]]
) -> None:
    """What stands beside the scans: of what they are, and of whom."""
    if len(generator.about["shape"]) == 4:
        bids.describe(
            folder,
            name="Synthetic MRI",
            model=generator.about["weights"],
            labels=[_label(number) for number in range(len(rows))],
            covariates=rows,
        )
        return
    blocks = [np.load(path) for path in sorted(state.glob("batch-*.npy"))]
    images = np.concatenate(blocks)
    grey = images.shape[1] == 1
    idx.write(folder / IMAGES, images[:, 0] if grey else np.moveaxis(images, 1, -1))
    of_each = ([number, *row.values()] for number, row in enumerate(rows))
    replace_file(folder / TABLE, tsv(["number", *rows[0]], of_each))


def _label(number: int) -> str:
    return f"synthetic{number:05d}"
