"""The published outputs that are evaluated, opened together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from vqmri.codes import CodeStore, code_tensors
from vqmri.outputs.manifest import digest
from vqmri.scans.split import TRAIN, rows_of
from vqmri.scans.store import VolumeStore
from vqmri.scans.volume import Record
from vqmri.stages.kinship import check_kinship
from vqmri.training.generator import Generator

_VOXELS_PER_BATCH = 2**20


@dataclass(frozen=True)
class Opened:
    """Every published output that is evaluated; `folders`: where each lies."""

    folders: Mapping[str, Path]
    volumes: VolumeStore
    codes: CodeStore
    samples: CodeStore
    generator: Generator

    def indices(self, split: str) -> list[int]:
        """Rows of one side of the split, the same in volumes and codes."""
        return rows_of(self.volumes.records, split)

    def records(self, split: str) -> list[Record]:
        return self.volumes.of_split(split)

    def viewable(self, volumes: np.ndarray) -> np.ndarray:
        """The volumes with all channels in [0, 1]: indices of labels divided by the largest."""
        if not self.volumes.num_classes:
            return volumes
        shades = volumes[:, -1:] / (self.volumes.num_classes - 1)
        return np.concatenate([volumes[:, :-1], shades.astype(volumes.dtype)], axis=1)

    def mean_volume(self) -> np.ndarray:
        """Of all training volumes, (channel, *space); of a label map the mean index, rounded."""
        total = np.zeros(self.volumes.shape)
        records = self.records(TRAIN)
        size = max(1, _VOXELS_PER_BATCH // total.size)
        for start in range(0, len(records), size):
            part = self.volumes.read(records[start : start + size])
            total += part.sum(axis=0, dtype=np.float64)
        mean = (total / len(records)).astype(np.float32)
        if self.volumes.num_classes:
            mean[-1] = mean[-1].round()
        return mean

    def decode_samples(self, numbers: Sequence[int]) -> np.ndarray:
        """Volumes of some samples, as they were published."""
        return self.generator.decode_samples(self.samples, numbers)

    def decode(self, codes: Sequence[np.ndarray]) -> np.ndarray:
        """Volumes (item, channel, *space) of stored codes."""
        return self.generator.decode(code_tensors(codes, self.codes.num_embeddings))


def open_outputs(folders: Mapping[str, Path]) -> Opened:
    """Open all outputs; IntegrityError when they were not made of one another."""
    codes = CodeStore(folders["codes"])
    samples = CodeStore(folders["samples"])
    generator = Generator(folders["vqvae"], folders["prior"])
    vqvae, prior = generator.about, generator.prior_about
    volumes, weights = digest(folders["volumes"]), vqvae["weights"]
    check_kinship(
        folders,
        [
            ("vqvae", "volumes", vqvae["volumes"], volumes),
            ("codes", "volumes", codes.attributes["volumes"], volumes),
            ("codes", "vqvae", codes.attributes["vqvae_weights"], weights),
            ("prior", "codes", prior["codes"], digest(folders["codes"])),
            ("samples", "vqvae", samples.attributes["vqvae_weights"], weights),
            ("samples", "prior", samples.attributes["prior_weights"], prior["weights"]),
        ],
    )
    return Opened(folders, VolumeStore(folders["volumes"]), codes, samples, generator)
