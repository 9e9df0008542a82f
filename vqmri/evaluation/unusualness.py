"""How unusual a scan is, and where: the bits of its codes under the prior."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float

from vqmri.convolution import without_tf32
from vqmri.evaluation.likelihood import inside
from vqmri.prior import Prior
from vqmri.prior.covariates import Rows
from vqmri.scans.volume import code_box
from vqmri.shapes import Box
from vqmri.vqvae import VQVAE


class Unusualness(NamedTuple):
    """−log2 p of one scan's codes, at the positions inside its field of view.

    bits: of each map of codes by its name, finest first; more is more unusual
    density_bits: of each map of unquantised gains; of a density, so they may be negative, are no
        part of a message's length, and are left out of all else
    positions: of all maps of codes together
    voxels_in_view: how many voxels the field of view has
    voxels: bits per voxel, all maps of codes added up; 0 in the padding
    """

    bits: Mapping[str, float]
    density_bits: Mapping[str, float]
    positions: int
    voxels_in_view: int
    voxels: Float[np.ndarray, "*space"]

    @property
    def total_bits(self) -> float:
        """Of all maps of codes: the length of the scan's shortest message, and the map's sum."""
        return sum(self.bits.values())

    @property
    def bits_per_code(self) -> float:
        """Mean over the positions of all maps of codes together."""
        return self.total_bits / self.positions

    @property
    def bits_per_voxel(self) -> float:
        """Mean over the voxels of the field of view."""
        return self.total_bits / self.voxels_in_view


@torch.inference_mode()
def unusualness(
    vqvae: VQVAE, prior: Prior, volume: Float[np.ndarray, "channel *space"], box: Box, rows: Rows
) -> Unusualness:
    """The bits of one volume, exactly: one forward of the prior in float32, without autocast.

    Both models in evaluation mode and on one device. rows: covariates of this one subject
    """
    maps = vqvae.encode(torch.from_numpy(volume)[None].to(prior.device))
    with without_tf32():
        nats = prior(maps, rows.to(prior.device))
    bits, density_bits = {}, {}
    positions, voxels = 0, np.zeros(volume.shape[1:])
    factors = zip(vqvae.map_names, vqvae.downsamplings, vqvae.num_embeddings, strict=True)
    for (name, factor, number), found in zip(factors, nats, strict=True):
        each = found[0].double().cpu().numpy() / math.log(2)
        mask = inside([code_box(box, factor)], each.shape)[0]
        total = float(each[mask].sum())
        if not number:
            density_bits[name] = total
            continue
        bits[name] = total
        positions += int(mask.sum())
        voxels += spread(each, factor, box)
    in_view = math.prod(stop - start for start, stop in box)
    return Unusualness(bits, density_bits, positions, in_view, voxels)


def spread(
    values: Float[np.ndarray, "*grid"], downsampling: int, box: Box
) -> Float[np.ndarray, "*space"]:
    """Each position's value shared out evenly among those of its voxels that lie in the box.

    So the sum over the voxels is that over the positions that touch the box (`code_box`); voxels
    outside it are 0. A position stands for `downsampling` voxels along each axis.
    """
    axes = range(values.ndim)
    view = inside([box], [n * downsampling for n in values.shape])[0]
    blocks = view.reshape([n for size in values.shape for n in (size, downsampling)])
    shared_by = blocks.sum(axis=tuple(2 * axis + 1 for axis in axes))
    share = values / np.maximum(shared_by, 1)  # where it is 0, all voxels are outside
    for axis in axes:
        share = share.repeat(downsampling, axis)
    return np.where(view, share, 0.0)
