"""The volumes that a benchmark works on, and how close a reconstruction of them is."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from vqmri.errors import InputError
from vqmri.evaluation.reconstruction import psnr_in_view, ssim_in_view
from vqmri.outputs.manifest import MANIFEST
from vqmri.scans.split import HELD_OUT, TRAIN
from vqmri.scans.store import VolumeStore
from vqmri.scans.volume import Record
from vqmri.shapes import Box

Stack = Float[np.ndarray, "volume 1 *space"]


@dataclass(frozen=True)
class Side:
    """One side of the split: grey values in [0, 1] and the part of each that the scan covers."""

    volumes: Stack
    boxes: list[Box]


@dataclass(frozen=True)
class Split:
    """Both sides of an ingested project's own split.

    spacing: mm from voxel to voxel along each axis; 1 along those of pictures, which have none
    """

    train: Side
    held_out: Side
    spacing: tuple[float, ...]

    @property
    def space(self) -> tuple[int, ...]:
        """Voxels of the whole array along each axis, padding counted."""
        return self.train.volumes.shape[2:]


def read_split(folder: Path) -> Split:
    """Read a published data/volumes into memory, without the label map if it has one.

    Raises InputError when nothing is published there, or when there is more than one grey channel.
    """
    if not (folder / MANIFEST).is_file():
        raise InputError(
            f"{folder} is missing. Run this in a project that was ingested "
            "(`vqmri init --preset hippocampus`, `vqmri ingest`), or name one with --volumes."
        )
    store = VolumeStore(folder)
    num_grey = store.shape[0] - (store.num_classes > 0)
    if num_grey != 1:
        raise InputError(f"{folder} has {num_grey} channels of grey values; this needs one.")

    def side(records: Sequence[Record]) -> Side:
        return Side(store.read(records)[:, :1], [record.box for record in records])

    spacing = store.spacing or (1.0,) * len(store.shape[1:])
    return Split(side(store.of_split(TRAIN)), side(store.of_split(HELD_OUT)), spacing)


def closeness(reconstructed: Stack, side: Side) -> dict[str, float]:
    """`psnr` in dB and `mse` inside the field of view, each the mean over volumes; range 1.

    Reconstructions are clipped to [0, 1] first. The mean PSNR is not the PSNR of the mean error.
    """
    psnr = psnr_in_view(np.clip(reconstructed, 0, 1), side.volumes, side.boxes)
    errors = [10 ** (-value / 10) for value in psnr]
    return {"psnr": float(np.mean(psnr)), "mse": float(np.mean(errors))}


def similarity(reconstructed: Stack, side: Side) -> float | None:
    """Mean over volumes of the SSIM inside the field of view; reconstructions clipped to [0, 1].

    None when a field of view is smaller than SSIM's window.
    """
    ssim = float(np.mean(ssim_in_view(np.clip(reconstructed, 0, 1), side.volumes, side.boxes)))
    return None if np.isnan(ssim) else ssim
