"""Prior and decoder together: from (seed, number) to a synthetic volume."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from vqmri.errors import IntegrityError
from vqmri.prior import Prior
from vqmri.prior.sampler import draw
from vqmri.training.device import choose_device
from vqmri.training.model_folder import load_model
from vqmri.vqvae import VQVAE

MICRO_BATCH = 8
"""Samples are drawn in batches of this size, sample i always in slot i mod MICRO_BATCH.

Float32 products differ in the last bits with the batch (a row alone and among 16: 5e-6), so a
fixed size and a fixed slot are what makes sample i depend on (seed, i, model) alone.
"""


class Generator:
    """The two published models that make synthetic scans.

    about, prior_about: the models' descriptions; shape, spacing and orientation of the volumes
        stand in the first
    Raises IntegrityError when the prior was trained on the codes of another VQ-VAE.
    """

    def __init__(self, vqvae_folder: Path, prior_folder: Path) -> None:
        vqvae, about = load_model(vqvae_folder, VQVAE)
        prior, prior_about = load_model(prior_folder, Prior)
        if prior_about["vqvae_weights"] != about["weights"]:
            raise IntegrityError(
                f"{prior_folder} was trained on codes of the VQ-VAE "
                f"{prior_about['vqvae_weights'][:16]}, but {vqvae_folder} is "
                f"{about['weights'][:16]}. Train the prior again with `vqmri train_prior`."
            )
        self.device = choose_device()
        self.vqvae = vqvae.to(self.device)
        self.prior = prior.to(self.device)
        self.about = about
        self.prior_about = prior_about

    def draw(
        self,
        seed: int,
        batch: int,
        temperature: float,
        progress: Callable[[int], object] = lambda positions: None,
    ) -> list[Tensor]:
        """Codes of the samples of one micro-batch, finest level first, each (slot, *grid)."""
        numbers = range(batch * MICRO_BATCH, (batch + 1) * MICRO_BATCH)
        return draw(
            self.prior, seed=seed, numbers=numbers, temperature=temperature, progress=progress
        )

    @torch.inference_mode()
    def decode(self, codes: Sequence[Tensor]) -> Float[np.ndarray, "slot channel *space"]:
        """Volumes of codes, intensities in [0, 1], float32."""
        volumes = self.vqvae.decode([level.to(self.device) for level in codes])
        return volumes.float().clamp(0, 1).cpu().numpy()

    def sample(
        self, seed: int, numbers: Sequence[int], temperature: float
    ) -> Float[np.ndarray, "sample channel *space"]:
        """The synthetic volumes of some numbers, in their order."""
        volumes: dict[int, np.ndarray] = {}
        for batch in sorted({number // MICRO_BATCH for number in numbers}):
            decoded = self.decode(self.draw(seed, batch, temperature))
            volumes |= {batch * MICRO_BATCH + slot: v for slot, v in enumerate(decoded)}
        return np.stack([volumes[number] for number in numbers])
