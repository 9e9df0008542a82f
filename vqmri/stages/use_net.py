"""One net of the stage `use`: trained on real scans, on samples or on both, and tested."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Shaped

from vqmri.codes import CodeStore
from vqmri.evaluation.accuracy import outputs, train_recogniser
from vqmri.evaluation.reconstruction import dice_of_labels
from vqmri.evaluation.segmentation import segment, train_segmenter
from vqmri.outputs import replace_file
from vqmri.outputs.arrays import npz
from vqmri.prior.covariates import Categorical, Continuous, Covariate, from_json
from vqmri.scans.split import HELD_OUT, TRAIN
from vqmri.scans.store import VolumeStore
from vqmri.scans.volume import Record, crop
from vqmri.terminal import progress

SOURCES = ("real", "synthetic", "both")
"""What a net is trained on; the number of steps is the same."""

SAMPLES, RECONSTRUCTIONS = "samples.npy", "reconstructions.npy"
SHOWN = 6
"""Held-out scans of which a plane is kept for the picture."""

_MOST_RECOGNISED, _MOST_SEGMENTED = 128, 32  # items of a batch
_VOXELS_RECOGNISED, _VOXELS_SEGMENTED = 2**20, 2**18

Read = Callable[[list[int]], np.ndarray]


@dataclass(frozen=True)
class Net:
    """One unit of work, in plain values.

    number: of what is to be learnt, for the name of its file
    covariate: to be recognised, as `prior.covariates.to_json` writes it; None: the label map
    source: one of SOURCES
    """

    number: int
    covariate: dict[str, Any] | None
    source: str
    steps: int
    seed: int
    volumes: str
    samples: str
    state: str


@dataclass(frozen=True)
class Scans:
    """Volumes of several places in one row, read when they are asked for.

    parts: how many there are in a place, and how to read some of them
    shape: (item, channel, *space); channels after these are left out
    """

    parts: Sequence[tuple[int, Read]]
    shape: tuple[int, ...]

    def __getitem__(self, indices: list[int], /) -> Float[np.ndarray, "item channel *space"]:
        wanted = np.array(indices, np.int64)
        found = np.empty((len(wanted), *self.shape[1:]), np.float32)
        start = 0
        for count, read in self.parts:
            here = np.flatnonzero((wanted >= start) & (wanted < start + count))
            if len(here):
                found[here] = read((wanted[here] - start).tolist())[:, : self.shape[1]]
            start += count
        return found


def train_net(net: Net) -> str:
    """Train and test a net, unless a killed run already did; the file that holds its results."""
    path = Path(net.state) / f"net-{net.number}-{net.source}.npz"
    if not path.is_file():
        title = f"{net.covariate['name'] if net.covariate else 'labels'}, {net.source}"
        with progress(title, net.steps, "step", inner=True) as bar:
            learn = _recognise if net.covariate else _segment
            found = learn(net, Material(net), bar.advance)
        replace_file(path, npz(found))
    return str(path)


class Material:
    """The scans and samples to learn from and to test on."""

    def __init__(self, net: Net) -> None:
        self.store = VolumeStore(Path(net.volumes))
        self.asked: list[dict[str, Any]] = CodeStore(Path(net.samples)).attributes["covariates"]
        self._state = Path(net.state)

    def training(self, source: str, records: Sequence[Record], channels: int) -> Scans:
        """What a net is trained on: real scans, then samples."""
        parts = {"real": [self._real(records)], "synthetic": [self._saved(SAMPLES)]}
        return self._scans(parts.get(source) or [*parts["real"], *parts["synthetic"]], channels)

    def real(self, records: Sequence[Record], channels: int) -> Scans:
        return self._scans([self._real(records)], channels)

    def drawn(self, channels: int) -> Scans:
        """All samples."""
        return self._scans([self._saved(SAMPLES)], channels)

    def reconstructed(self, records: Sequence[Record], channels: int) -> Scans:
        """Of held-out scans."""
        places = {r.index: i for i, r in enumerate(self.store.of_split(HELD_OUT))}
        read = self._saved(RECONSTRUCTIONS)[1]
        chosen = [places[record.index] for record in records]
        return self._scans([(len(chosen), lambda some: read([chosen[i] for i in some]))], channels)

    def _real(self, records: Sequence[Record]) -> tuple[int, Read]:
        return len(records), lambda some: self.store.read([records[i] for i in some])

    def _saved(self, name: str) -> tuple[int, Read]:
        array = np.load(self._state / name, mmap_mode="r")
        return len(array), lambda some: array[some]

    def _scans(self, parts: Sequence[tuple[int, Read]], channels: int) -> Scans:
        count = sum(number for number, _ in parts)
        return Scans(parts, (count, channels, *self.store.shape[1:]))


def known(records: Sequence[Record], covariate: Covariate) -> list[Record]:
    """Those whose value is known, and can be recognised."""
    return [r for r in records if covariate.is_known(r.covariates.get(covariate.name))]


def numbers(covariate: Covariate, rows: Sequence[Mapping[str, Any]]) -> Float[np.ndarray, " item"]:
    """Indices of classes, or standardised values."""
    found = [covariate.number(row[covariate.name], extrapolate=True) for row in rows]
    return np.array(found, np.float64)


def in_unit(covariate: Covariate, found: Float[np.ndarray, " item"]) -> Float[np.ndarray, " item"]:
    """Standardised values in the covariate's unit; indices of classes as they are."""
    return found * covariate.std + covariate.mean if isinstance(covariate, Continuous) else found


def plane(
    volume: Shaped[np.ndarray, "*space"], labels: Shaped[np.ndarray, "*space"]
) -> Shaped[np.ndarray, "height width"]:
    """The axial slice of a volume that has most labelled voxels, up being up; a picture itself."""
    if volume.ndim == 2:
        return volume
    return np.flipud(volume[:, :, int((labels > 0).sum(axis=(0, 1)).argmax())].T)


def _recognise(net: Net, material: Material, progress: Callable[[int], object]) -> dict[str, Any]:
    """What the net says of held-out scans; trained on real ones, of what the decoder made too.

    Classes as logits' best, values standardised.
    """
    assert net.covariate is not None
    covariate = from_json([net.covariate])[0]
    store = material.store
    channels = store.num_images
    train, held = (known(store.of_split(split), covariate) for split in (TRAIN, HELD_OUT))
    real = numbers(covariate, [record.covariates for record in train])
    asked = numbers(covariate, material.asked)
    targets = {"real": real, "synthetic": asked, "both": np.concatenate([real, asked])}[net.source]
    size = _batch(store.shape, _MOST_RECOGNISED, _VOXELS_RECOGNISED)
    options: Any = {"steps": net.steps, "seed": net.seed, "batch_size": size, "progress": progress}
    volumes = material.training(net.source, train, channels)
    num_classes = len(covariate.values) if isinstance(covariate, Categorical) else 0
    model = train_recogniser(volumes, targets, num_classes, **options)

    def said(scans: Scans) -> np.ndarray:
        found = outputs(model, scans, batch_size=size)
        best = found.argmax(axis=1) if num_classes else found[:, 0]
        return best.astype(np.float64)

    found = {"held_out": said(material.real(held, channels))}
    if net.source == "real":
        found["samples"] = said(material.drawn(channels))
        found["reconstructed"] = said(material.reconstructed(held, channels))
    return found


def _segment(net: Net, material: Material, progress: Callable[[int], object]) -> dict[str, Any]:
    """Dice of each held-out scan and label in its field of view, and planes of the first scans."""
    store = material.store
    size = _batch(store.shape, _MOST_SEGMENTED, _VOXELS_SEGMENTED)
    model = train_segmenter(
        material.training(net.source, store.of_split(TRAIN), store.shape[0]),
        store.num_classes,
        steps=net.steps,
        seed=net.seed,
        batch_size=size,
        progress=progress,
    )
    scores: list[np.ndarray] = []
    planes: list[np.ndarray] = []
    for record in store.of_split(HELD_OUT):
        volume, view = store.read([record])[0], crop(record.box)
        predicted = segment(model, volume[None, :-1])[0]
        truth = volume[-1]
        labels = range(1, store.num_classes)
        scores.append(dice_of_labels(predicted[view], truth[view], labels))
        if len(planes) < SHOWN:
            planes.append(plane(predicted, truth).astype(np.uint8))
    return {"dice": np.stack(scores), "planes": np.stack(planes)}


def _batch(shape: Sequence[int], most: int, voxels: int) -> int:
    """Items of a batch: as many as have so many voxels, at most `most`, at least one."""
    return min(most, max(1, voxels // int(np.prod(shape[1:]))))
