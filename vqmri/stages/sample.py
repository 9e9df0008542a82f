"""vqvae + prior → samples: draw codes, decode them, write NIfTI in a BIDS-derivative layout."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from vqmri.codes import CodeWriter
from vqmri.codes.schema import code_dtype
from vqmri.layout import Layout
from vqmri.outputs import Identity, publishing, replace_file
from vqmri.outputs.manifest import digest
from vqmri.params import Params
from vqmri.protocols import Map, Metrics, Tracker
from vqmri.scans import bids
from vqmri.training.generator import MICRO_BATCH, Generator

FORMAT_VERSION = 1


@dataclass(frozen=True)
class Batch:
    """One unit of work, in plain values: the samples of one micro-batch."""

    number: int
    count: int
    seed: int
    temperature: float
    suffix: str
    vqvae: str
    prior: str
    out: str
    state: str


def sample(
    params: Params, data: Layout, *, tracker: Tracker | None = None, each: Map = map
) -> Metrics:
    """Publish data/samples: one NIfTI file per sample, and the codes that it was decoded from.

    Sample i depends on (seed, i, model) alone.
    """
    settings = params.sample
    vqvae, prior = data.need("vqvae"), data.need("prior")
    identity = Identity(
        "sample",
        FORMAT_VERSION,
        {"sample": settings.model_dump(mode="json")},
        {"vqvae": digest(vqvae), "prior": digest(prior)},
    )
    with publishing(data.output("samples"), data.work, identity) as work:
        generator = Generator(vqvae, prior)
        writer = CodeWriter(work.out)
        writer.create(
            settings.count, generator.prior.grids, generator.prior.num_embeddings, MICRO_BATCH
        )
        batches = [
            Batch(
                number=number,
                count=settings.count,
                seed=settings.seed,
                temperature=settings.temperature,
                suffix=settings.suffix,
                vqvae=str(vqvae),
                prior=str(prior),
                out=str(work.out),
                state=str(work.state),
            )
            for number in range(-(-settings.count // MICRO_BATCH))
        ]
        drawn = sum(each(sample_batch, batches))
        writer.finish(
            {
                "downsamplings": list(generator.vqvae.downsamplings),
                "vqvae_weights": generator.about["weights"],
                "prior_weights": generator.prior_about["weights"],
                "seed": settings.seed,
                "temperature": settings.temperature,
            }
        )
        bids.describe(
            work.out,
            name="Synthetic MRI",
            model=generator.about["weights"],
            labels=[_label(number) for number in range(settings.count)],
        )
    return {"samples": drawn}


def sample_batch(batch: Batch) -> int:
    """Draw, decode and write one micro-batch, unless a killed run already did; how many it has."""
    first = batch.number * MICRO_BATCH
    numbers = range(first, min(first + MICRO_BATCH, batch.count))
    marker = Path(batch.state) / f"batch-{batch.number:05d}"
    if not marker.is_file():
        _draw(batch, numbers)
        replace_file(marker, b"")
    return len(numbers)


def _draw(batch: Batch, numbers: Sequence[int]) -> None:
    generator = Generator(Path(batch.vqvae), Path(batch.prior))
    positions = sum(int(np.prod(grid)) for grid in generator.prior.grids)
    title = f"sample {numbers[0]}-{numbers[-1]}"
    with tqdm(total=positions, desc=title, unit="position", mininterval=1.0) as bar:
        codes = generator.draw(batch.seed, batch.number, batch.temperature, bar.update)
    volumes = generator.decode(codes)
    for number, volume in zip(numbers, volumes, strict=False):
        about = {
            "Seed": batch.seed,
            "Number": number,
            "Temperature": batch.temperature,
            "VQVAEWeights": generator.about["weights"],
        }
        bids.write_scan(
            Path(batch.out) / bids.scan_path(_label(number), batch.suffix),
            volume,
            generator.about["spacing"],
            about,
        )
    arrays = [
        level[: len(numbers)].cpu().numpy().astype(code_dtype(size))
        for level, size in zip(codes, generator.prior.num_embeddings, strict=True)
    ]
    CodeWriter(Path(batch.out)).write_shard(numbers[0], arrays)


def _label(number: int) -> str:
    return f"synthetic{number:05d}"
