"""volumes + models + samples → use: can one learn from the samples?

The same net is trained on real training volumes, on samples alone and on both, for as many steps,
and tested on held-out real scans.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from vqmri.codes import CodeStore
from vqmri.layout import Layout
from vqmri.outputs import Identity, digest, publishing, replace_file
from vqmri.outputs.arrays import read_npz
from vqmri.outputs.rehearsal import begins
from vqmri.params import Params, Use
from vqmri.prior.covariates import Categorical, Continuous, Covariate, to_json
from vqmri.protocols import Map, Metrics, Tracker
from vqmri.scans.split import HELD_OUT, TRAIN
from vqmri.scans.store import VolumeStore
from vqmri.scans.volume import Record
from vqmri.stages.kinship import check_kinship
from vqmri.stages.use_figures import Found, of_classes, of_labels, of_values
from vqmri.stages.use_net import (
    RECONSTRUCTIONS,
    SAMPLES,
    SHOWN,
    SOURCES,
    Net,
    in_unit,
    known,
    numbers,
    plane,
    train_net,
)
from vqmri.terminal import follow, progress
from vqmri.training.generator import Generator

FORMAT_VERSION = 1
TABLE, PREDICTIONS = "use.json", "predictions.npz"
_VOXELS_AT_A_TIME = 2**22


@dataclass(frozen=True)
class Learnt:
    """One aim's figures, and what is needed for its picture."""

    row: dict[str, Any]
    arrays: dict[str, np.ndarray]


def use(
    params: Params, data: Layout, *, tracker: Tracker | None = None, each: Map = map
) -> Metrics:
    """Publish data/use: how well nets that learnt from samples do on real scans.

    What is learnt: every condition of the prior of which the samples were asked for all classes, or
    for several values; and the label map if there is one. Without a section `use` in params the
    table is empty. IntegrityError when the inputs were not made of one another.
    """
    folders = {name: data.need(name) for name in ("volumes", "vqvae", "prior", "samples")}
    identity = Identity(
        "use",
        FORMAT_VERSION,
        {"seed": params.seed, "use": params.use and params.use.model_dump(mode="json")},
        {name: digest(folder) for name, folder in folders.items()},
    )
    learnt: list[Learnt] = []
    with publishing(data.output("use"), data.work, identity) as work:
        subject = Subject(folders, params.use, params.seed) if params.use else None
        begins()
        if subject:
            learnt = subject.learn(work.state, each)
            arrays: dict[str, Any] = {
                f"{number}_{name}": array
                for number, aim in enumerate(learnt)
                for name, array in aim.arrays.items()
            }
            np.savez(work.out / PREDICTIONS, **arrays)
        table = [aim.row for aim in learnt]
        replace_file(work.out / TABLE, (json.dumps(table, indent=1) + "\n").encode())
    return {name: value for row in table for name, value in use_metrics(row).items()}


def use_metrics(row: Mapping[str, Any]) -> Metrics:
    """The figures of one row of the table, by the names that they have among all metrics."""
    return {f"use_{_plain(row['name'])}_{key}": value for key, value in row["figures"].items()}


class Subject:
    """What is used: the samples of one pair of models, beside the scans that these learnt from."""

    def __init__(self, folders: Mapping[str, Path], settings: Use, seed: int) -> None:
        self._folders, self._settings, self._seed = folders, settings, seed
        self._generator = Generator(folders["vqvae"], folders["prior"])
        self._samples = CodeStore(folders["samples"])
        vqvae, prior = self._generator.about, self._generator.prior_about
        drawn_by = self._samples.attributes
        check_kinship(
            folders,
            [
                ("vqvae", "volumes", vqvae["volumes"], digest(folders["volumes"])),
                ("samples", "vqvae", drawn_by["vqvae_weights"], vqvae["weights"]),
                ("samples", "prior", drawn_by["prior_weights"], prior["weights"]),
            ],
        )
        self._volumes = VolumeStore(folders["volumes"])
        self._asked: list[dict[str, Any]] = drawn_by["covariates"]

    def learn(self, state: Path, each: Map) -> list[Learnt]:
        """Train and test every net; those that a killed run left in `state` are done."""
        covariates = self._generator.prior.covariates
        aims: list[Covariate | None] = [c for c in covariates if self._teaches(c)]
        if self._volumes.num_classes and self._volumes.of_split(HELD_OUT):
            aims.append(None)
        if not aims:
            return []
        self._decode(state, reconstructions=aims != [None])
        nets = [
            Net(
                number=number,
                covariate=to_json([aim])[0] if aim else None,
                source=source,
                steps=self._settings.steps,
                seed=self._seed,
                volumes=str(self._folders["volumes"]),
                samples=str(self._folders["samples"]),
                state=str(state),
            )
            for number, aim in enumerate(aims)
            for source in SOURCES
        ]
        done = iter(list(follow(each(train_net, nets), "use", len(nets), "net")))
        return [self._judge(aim, {s: read_npz(Path(next(done))) for s in SOURCES}) for aim in aims]

    def _teaches(self, covariate: Covariate) -> bool:
        """Whether the samples can teach it, and it can be tested."""
        asked = [row.get(covariate.name) for row in self._asked]
        if None in asked or not known(self._volumes.of_split(HELD_OUT), covariate):
            return False
        if isinstance(covariate, Categorical):
            return {str(value) for value in asked} == set(covariate.values)
        return len(set(asked)) > 1

    def _decode(self, state: Path, *, reconstructions: bool) -> None:
        """Write samples, and reconstructions of held-out scans, once for all nets."""
        generator, shape = self._generator, self._volumes.shape
        size = max(1, _VOXELS_AT_A_TIME // int(np.prod(shape)))

        def samples(some: range) -> np.ndarray:
            return generator.decode_samples(self._samples, some)

        held = self._volumes.of_split(HELD_OUT)

        @torch.inference_mode()
        def rebuilt(some: range) -> np.ndarray:
            volumes = torch.from_numpy(self._volumes.read(held[some.start : some.stop]))
            return generator.decode(generator.vqvae.encode(volumes.to(generator.device)))

        _save(state / SAMPLES, self._samples.count, shape, size, samples)
        if reconstructions:
            _save(state / RECONSTRUCTIONS, len(held), shape, size, rebuilt)

    def _judge(self, aim: Covariate | None, found: Found) -> Learnt:
        """Figures of one aim, and the arrays of its picture."""
        held, train = (self._volumes.of_split(split) for split in (HELD_OUT, TRAIN))
        if aim is None:
            planes = {source: arrays["planes"] for source, arrays in found.items()}
            values = self._volumes.channels[-1].label_values[1:]
            figures = of_labels(found, values, [r.subject for r in held], self._seed)
            return self._learnt("dice", "labels", held, train, figures, self._planes() | planes)
        held, train = known(held, aim), known(train, aim)
        subjects, rows = [r.subject for r in held], [r.covariates for r in held]
        truth, asked = (in_unit(aim, numbers(aim, r)) for r in (rows, self._asked))
        found = {
            source: {name: in_unit(aim, said) for name, said in arrays.items()}
            for source, arrays in found.items()
        }
        if isinstance(aim, Continuous):
            kind = "continuous"
            figures = of_values(found, truth, asked, subjects, self._seed, mean=aim.mean)
        else:
            kind = "categorical"
            figures = of_classes(found, truth, asked, subjects, self._seed)
        arrays = {"truth": truth, "asked": asked, "seen": found["real"]["samples"]}
        said = {source: arrays["held_out"] for source, arrays in found.items()}
        return self._learnt(aim.name, kind, held, train, figures, arrays | said)

    def _learnt(
        self,
        name: str,
        kind: str,
        held: Sequence[Record],
        train: Sequence[Record],
        figures: Metrics,
        arrays: dict[str, np.ndarray],
    ) -> Learnt:
        row = {
            "name": name,
            "kind": kind,
            "steps": self._settings.steps,
            "real": len(train),
            "synthetic": self._samples.count,
            "held_out": len(held),
            "held_out_subjects": len({record.subject for record in held}),
            "figures": figures,
        }
        return Learnt(row, arrays)

    def _planes(self) -> dict[str, np.ndarray]:
        """Grey values and label map of the first held-out scans."""
        volumes = self._volumes.read(self._volumes.of_split(HELD_OUT)[:SHOWN])
        grey = [plane(volume[0], volume[-1]) for volume in volumes]
        truth = [plane(volume[-1], volume[-1]).astype(np.uint8) for volume in volumes]
        return {"grey": np.stack(grey), "truth": np.stack(truth)}


def _save(
    path: Path, count: int, shape: Sequence[int], size: int, make: Callable[[range], np.ndarray]
) -> None:
    """Write `make` of every item to a file, `size` at a time, unless a killed run already did."""
    if path.is_file():
        return
    beside = path.with_name(f".{path.name}.part")
    array = np.lib.format.open_memmap(beside, "w+", np.float32, (count, *shape))
    with progress(path.stem, count, "scan", inner=True) as bar:
        for start in range(0, count, size):
            some = range(start, min(start + size, count))
            array[some.start : some.stop] = make(some)
            bar.advance(len(some))
    array.flush()
    beside.replace(path)


def _plain(name: str) -> str:
    """A covariate's name as a metric may have it."""
    return re.sub(r"[^0-9A-Za-z_.-]", "_", name)
