"""codes + models → study: is the prior needed, and why must one draw? By measurement."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vqmri.codes import CodeStore, code_tensors
from vqmri.evaluation.likelihood import held_out_likelihood, masks_in_view
from vqmri.evaluation.marginals import PositionMarginals, uniform
from vqmri.evaluation.montage import one_slice
from vqmri.evaluation.structure import (
    nearest_difference,
    neighbour_divergence,
    pairwise_difference,
    unique_items,
)
from vqmri.layout import Layout
from vqmri.outputs import Identity, digest, publishing, replace_file
from vqmri.outputs.arrays import npz, read_npz
from vqmri.outputs.rehearsal import begins
from vqmri.params import Params, Study
from vqmri.prior.choice import Choice
from vqmri.prior.covariates import known_rows
from vqmri.protocols import Map, Metrics, Tracker
from vqmri.quantizers import Quantized, Quantizer
from vqmri.scans.split import HELD_OUT, TRAIN, rows_of
from vqmri.scans.store import VolumeStore
from vqmri.scans.volume import Record
from vqmri.stages.kinship import check_kinship
from vqmri.terminal import follow
from vqmri.training.generator import Generator

FORMAT_VERSION = 3
TABLE, DECODED = "study.json", "decoded.npz"
SHOWN = 8
"""Items of each way of which a middle slice is kept for the picture."""
_GAIN_BINS = 16
_ARGMAX = "prior, likeliest code"

Maps = list[np.ndarray]
"""Codes (or gains) of some items, one array per map, finest first."""


@dataclass(frozen=True)
class Batch:
    """One unit of work, in plain values: one micro-batch drawn from the prior."""

    number: int
    temperature: float
    rows: list[list[float]]
    seed: int
    vqvae: str
    prior: str
    state: str


def study(
    params: Params, data: Layout, *, tracker: Tracker | None = None, each: Map = map
) -> Metrics:
    """Publish data/study: a table of ways to choose codes, and what they decode to.

    Without a section `study` in params the table is empty.
    """
    folders = {name: data.need(name) for name in ("volumes", "vqvae", "codes", "prior")}
    identity = Identity(
        "study",
        FORMAT_VERSION,
        {"seed": params.seed, "study": params.study and params.study.model_dump(mode="json")},
        {name: digest(folder) for name, folder in folders.items()},
    )
    table: list[dict[str, Any]] = []
    with publishing(data.output("study"), data.work, identity) as work:
        subject = Subject(folders, params.study, params.seed) if params.study else None
        begins()
        if subject:
            ways = subject.ways(work.state, each)
            shown: dict[str, Any] = {}
            for name, bits, maps in follow(ways, "study", None, "way"):
                table.append({"way": name, "bits_per_code": bits, **subject.measure(maps)})
                shown[f"way_{len(shown)}"] = subject.decode(maps)
            np.savez(work.out / DECODED, **shown)
        replace_file(work.out / TABLE, (json.dumps(table, indent=1) + "\n").encode())
    return _metrics(table)


def _metrics(table: Sequence[Mapping[str, Any]]) -> Metrics:
    """Figures of the draws at temperature 1, of the likeliest codes, and of the marginals."""
    names = {
        "prior, T = 1": "prior",
        _ARGMAX: "likeliest",
        "marginal of each position": "marginal",
        "real training codes": "training",
    }
    return {
        f"study_{names[row['way']]}_{key}": float(row[key])
        for row in table
        if row["way"] in names
        for key in ("bits_per_code", "unique", "neighbour_divergence", "pairwise_difference")
        if row[key] is not None
    }


class Subject:
    """What is studied: held-out and training codes of one model, and ways to make others.

    All ways have `count` items, with the covariates of as many held-out ones.
    """

    def __init__(self, folders: Mapping[str, Path], settings: Study, seed: int) -> None:
        self._folders, self._settings, self._seed = folders, settings, seed
        self._generator = Generator(folders["vqvae"], folders["prior"])
        self._codes = CodeStore(folders["codes"])
        made = {"prior": self._generator.prior_about, "codes": self._codes.attributes}
        check_kinship(
            folders,
            [
                (name, of, made[name][of], digest(folders[of]))
                for name, of in (("prior", "codes"), ("codes", "volumes"))
            ],
        )
        self._volumes = VolumeStore(folders["volumes"])
        self._records = [Record(**row) for row in self._codes.attributes["records"]]
        random = np.random.default_rng(seed)
        held, training = (rows_of(self._records, split) for split in (HELD_OUT, TRAIN))
        self._count = min(settings.count, len(held), len(training))
        self._held = sorted(random.permutation(held)[: self._count].tolist())
        same = sorted(random.permutation(training)[: self._count].tolist())
        self._training = self._codes.read(training)
        copies = len(self._codes.attributes.get("variations", []))
        learnt = range(len(self._records), len(self._records) + copies)
        self._known = self._codes.read([*training, *learnt])
        self._reference, self._real = self._codes.read(self._held), self._codes.read(same)
        self._edges = [
            np.quantile(values, np.linspace(0, 1, _GAIN_BINS + 1)[1:-1]) if not number else None
            for values, number in zip(self._training, self._codes.num_embeddings, strict=True)
        ]
        prior = self._generator.prior
        self._rows = known_rows(prior.covariates, [self._records[i].covariates for i in self._held])

    def ways(self, state: Path, each: Map) -> Iterator[tuple[str, float | None, Maps]]:
        """Name, held-out bits per code where the way has a likelihood, and the codes."""
        random = np.random.default_rng([self._seed, 1])
        yield "real held-out codes", None, self._reference
        yield "real training codes", None, self._real
        yield "uniform codes", self._uniform_bits(), self._uniform(random)
        marginals = [
            PositionMarginals(values, number)
            for values, number in zip(self._binned(self._training), self._sizes, strict=True)
        ]
        if all(self._codes.num_embeddings):
            drawn = [marginal.draw(self._count, random) for marginal in marginals]
            yield "marginal of each position", self._marginal_bits(marginals), drawn
        if len(self._generator.vqvae.quantizers) == len(self._codes.maps):
            yield "one scan, nearest codes (τ → 0)", None, self._by_distance(0.0)
            yield "one scan, drawn by distance (τ = 1)", None, self._by_distance(1.0)
        yield _ARGMAX, None, self._from_prior(0.0, state, each)
        for temperature in self._settings.temperatures:
            name = f"prior, T = {temperature:g}"
            maps = self._from_prior(temperature, state, each)
            yield name, self._prior_bits(temperature), maps

    def measure(self, maps: Maps) -> dict[str, Any]:
        """Statistics of one way's items: means over the maps, weighted by their positions."""
        binned, reference = self._binned(maps), self._binned(self._reference)
        known = self._binned(self._known)
        weights = [level[0].size for level in reference]

        def mean(values: Sequence[float]) -> float:
            return float(np.average(values, weights=weights))

        divergences = [
            neighbour_divergence(level, other, size)
            for level, other, size in zip(binned, reference, self._sizes, strict=True)
        ]
        nearest = [
            float(nearest_difference(level, others).mean())
            for level, others in zip(binned, known, strict=True)
        ]
        return {
            "items": len(maps[0]),
            "unique": unique_items(binned),
            "pairwise_difference": mean([pairwise_difference(level) for level in binned]),
            "neighbour_divergence": mean(divergences),
            "neighbour_divergence_of_maps": divergences,
            "nearest_training_difference": mean(nearest),
        }

    def decode(self, maps: Maps) -> np.ndarray:
        """A middle slice of each of the first items."""
        first = [level[:SHOWN] for level in maps]
        volumes = self._generator.decode(code_tensors(first, self._codes.num_embeddings))
        return np.stack([one_slice(volume) for volume in volumes])

    @property
    def _sizes(self) -> list[int]:
        return [number or _GAIN_BINS for number in self._codes.num_embeddings]

    def _binned(self, maps: Maps) -> Maps:
        """Codes as they are; real gains as bins that training gains fill evenly."""
        return [
            values.astype(np.int64) if edges is None else np.digitize(values, edges)
            for values, edges in zip(maps, self._edges, strict=True)
        ]

    def _held_out(self) -> tuple[Maps, list[np.ndarray], list[Record]]:
        """All held-out codes, their positions inside the fields of view, and their records."""
        held = rows_of(self._records, HELD_OUT)
        records = [self._records[i] for i in held]
        masks = masks_in_view(self._codes, [record.box for record in records])
        return self._codes.read(held), masks, records

    def _uniform_bits(self) -> float:
        _, masks, _ = self._held_out()
        sizes = np.array(self._codes.num_embeddings)
        weights = np.array([mask.sum() for mask in masks])[sizes > 0]
        return float(np.average(np.log2(sizes[sizes > 0]), weights=weights))

    def _uniform(self, random: np.random.Generator) -> Maps:
        maps = zip(self._training, self._codes.num_embeddings, strict=True)
        return [uniform(values, number, self._count, random) for values, number in maps]

    def _marginal_bits(self, marginals: Sequence[PositionMarginals]) -> float:
        maps, masks, _ = self._held_out()
        bits = [
            marginal.bits(values.astype(np.int64))[mask]
            for marginal, values, mask in zip(marginals, maps, masks, strict=True)
        ]
        return float(np.concatenate(bits).mean())

    def _prior_bits(self, temperature: float) -> float:
        maps, masks, records = self._held_out()
        prior = self._generator.prior
        values = code_tensors(maps, self._codes.num_embeddings)
        rows = known_rows(prior.covariates, [record.covariates for record in records])
        return held_out_likelihood(prior, values, masks, rows, temperature).bits_per_code

    def _by_distance(self, tau: float) -> Maps:
        """`count` draws of one held-out scan's codes from softmax(−‖z_e − e‖² / τ)."""
        scan = torch.from_numpy(self._volumes.read([self._records[self._held[0]]]))
        random = torch.Generator().manual_seed(self._seed)

        def choose(quantizer: Quantizer, latents: torch.Tensor) -> Quantized:
            scores = -quantizer.distances(latents).cpu()
            if tau > 0:
                uniform = torch.rand(scores.shape, generator=random).clamp(min=1e-30)
                scores = scores / tau - (-uniform.log()).log()
            codes = [scores.argmax(dim=1).to(latents.device)]
            return Quantized(quantizer.decode(codes), codes, latents.new_zeros(()))

        draws = self._count if tau > 0 else 1  # one at a time: distances are positions × K
        with torch.inference_mode():
            drawn = [
                self._generator.vqvae.reconstruct(scan.to(self._generator.device), choose).codes
                for _ in range(draws)
            ]
        maps = [torch.cat(level).cpu().numpy() for level in zip(*drawn, strict=True)]
        return [np.repeat(level, self._count // draws, axis=0) for level in maps]

    def _from_prior(self, temperature: float, state: Path, each: Map) -> Maps:
        """Draws with the covariates of held-out items."""
        size, count = self._generator.micro_batch, self._count
        batches = [
            Batch(
                number=start // size,
                temperature=temperature,
                rows=self._rows[start : start + size].tolist(),
                seed=self._seed,
                vqvae=str(self._folders["vqvae"]),
                prior=str(self._folders["prior"]),
                state=str(state),
            )
            for start in range(0, count, size)
        ]
        drawn = [read_npz(Path(path)) for path in each(draw_batch, batches)]
        names = [code_map.name for code_map in self._codes.maps]
        return [np.concatenate([block[name] for block in drawn])[:count] for name in names]


def draw_batch(batch: Batch) -> str:
    """Draw one micro-batch, unless a killed run already did; the file that holds it."""
    path = Path(batch.state) / f"temperature-{batch.temperature!r}-{batch.number:05d}.npz"
    if not path.is_file():
        generator = Generator(Path(batch.vqvae), Path(batch.prior))
        rows = torch.full((generator.micro_batch, len(generator.prior.covariates)), torch.nan)
        given = torch.tensor(batch.rows).reshape(len(batch.rows), rows.shape[1])
        rows[: len(given)] = given
        maps = generator.draw(batch.seed, batch.number, Choice(batch.temperature), rows=rows)
        arrays = (values.cpu().numpy() for values in maps)
        replace_file(path, npz(dict(zip(generator.vqvae.map_names, arrays, strict=True))))
    return str(path)
