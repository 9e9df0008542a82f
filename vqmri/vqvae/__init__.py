"""Volumes to latents and back."""

from vqmri.vqvae.objective import objective
from vqmri.vqvae.vqvae import VQVAE, Reconstruction

__all__ = ["VQVAE", "Reconstruction", "objective"]
