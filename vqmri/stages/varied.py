"""Varied copies of volumes, which the prior may learn from in place of the volumes themselves."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float

from vqmri.build.encode import Variation, variation_arguments
from vqmri.params import Variations
from vqmri.scans.store import VolumeStore
from vqmri.training.augment import Augmentation
from vqmri.training.batches import item_seed

_OF_VARIATIONS = 2**32  # in place of a step, where seeds are made: no training has as many


def varied(
    store: VolumeStore,
    settings: Variations,
    seed: int,
    copies: Sequence[Variation],
    numbers: Sequence[int],
) -> Float[np.ndarray, "copy channel *space"]:
    """The voxels of some copies; what is done to each depends on (seed, its number) alone."""
    volumes = torch.from_numpy(store.read([store.records[copy.of] for copy in copies]))
    vary = Augmentation(
        device=volumes.device,
        labelled=store.num_classes > 0,
        **variation_arguments(settings, spacing=store.spacing),
    )
    pairs = zip(volumes, copies, strict=True)
    turned = torch.stack([v.flip(1) if copy.mirrored else v for v, copy in pairs])
    seeds = [item_seed(seed, _OF_VARIATIONS, number) for number in numbers]
    return vary(turned, seeds).numpy()
