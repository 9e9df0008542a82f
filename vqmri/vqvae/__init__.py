"""Volumes to latents and back."""

from vqmri.vqvae.objective import Terms, objective
from vqmri.vqvae.vqvae import VQVAE, Reconstruction

__all__ = ["VQVAE", "Reconstruction", "Terms", "objective"]
