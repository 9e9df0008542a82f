"""Prior and decoder together: from (seed, number) to a synthetic volume."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from vqmri.codes import CodeStore, code_tensors
from vqmri.errors import IntegrityError
from vqmri.prior import Prior
from vqmri.prior.cached_sampler import cached
from vqmri.prior.choice import Choice
from vqmri.prior.covariates import Rows, encode
from vqmri.prior.graphed_sampler import graphed
from vqmri.prior.sampler import MapSampler, draw
from vqmri.training.device import choose_device
from vqmri.training.model_folder import load_model
from vqmri.vqvae import VQVAE
from vqmri.vqvae.residual import add_residuals

_MIN_BATCH = 8
_POSITIONS_PER_BATCH = 4096
_VOXELS_AT_A_TIME = 2**20  # that are decoded together; one volume if it has more


def micro_batch(prior: Prior) -> int:
    """Samples that are drawn together, sample i always in slot i mod this.

    Float32 products differ in the last bits with the batch (a row alone and among 16: 5e-6), so a
    fixed size and a fixed slot are what makes sample i depend on (seed, i, model) alone. Small
    grids take more of them, so that the work of an operation outweighs its call.
    """
    positions = sum(int(np.prod(grid)) for grid in prior.grids)
    return max(_MIN_BATCH, _POSITIONS_PER_BATCH // positions)


def fastest(device: torch.device) -> MapSampler:
    """The sampler for a device; all of them draw the same codes."""
    return graphed if device.type == "cuda" else cached


class Generator:
    """The two published models that make synthetic scans.

    about, prior_about: the models' descriptions; shape, spacing and orientation of the volumes
        stand in the first
    Raises IntegrityError when the prior was trained on the codes of another VQ-VAE.
    """

    def __init__(self, vqvae_folder: Path, prior_folder: Path) -> None:
        vqvae, about = load_model(vqvae_folder, VQVAE)
        prior, prior_about = load_model(prior_folder, Prior)
        of = prior_about.get("vqvae_weights")
        if of != about["weights"]:
            raise IntegrityError(
                f"{prior_folder} was trained on codes of the VQ-VAE "
                f"{str(of)[:16]}, but {vqvae_folder} is "
                f"{about['weights'][:16]}. Train the prior again with `vqmri train_prior`."
            )
        self.device = choose_device()
        self.vqvae = vqvae.to(self.device)
        self.prior = prior.to(self.device)
        self.micro_batch = micro_batch(prior)
        self.about = about
        self.prior_about = prior_about

    def draw(
        self,
        seed: int,
        batch: int,
        choice: Choice,
        *,
        rows: Rows | None = None,
        progress: Callable[[int], object] = lambda positions: None,
    ) -> list[Tensor]:
        """Each map of one micro-batch's samples, finest first, (slot, *grid).

        rows: covariates of the slots (`prior.covariates.encode`); None for nothing known
        """
        numbers = range(batch * self.micro_batch, (batch + 1) * self.micro_batch)
        return draw(
            self.prior,
            seed=seed,
            numbers=numbers,
            choice=choice,
            rows=rows,
            sampler=fastest(self.device),
            progress=progress,
        )

    @torch.inference_mode()
    def decode(
        self, codes: Sequence[Tensor], *, number: int | None = None
    ) -> Float[np.ndarray, "slot channel *space"]:
        """Volumes of codes, intensities in [0, 1] and indices of labels if any, float32.

        number: of the first slots that are wanted; they are decoded as they are among all slots
        """
        size = max(1, _VOXELS_AT_A_TIME // int(np.prod(self.about["shape"][1:])))
        parts = list(zip(*(values.to(self.device).split(size) for values in codes), strict=True))
        wanted = parts if number is None else parts[: -(-number // size)]
        volumes = [self.vqvae.to_volumes(self.vqvae.decode(part)).cpu().numpy() for part in wanted]
        return np.concatenate(volumes)[:number]

    @torch.inference_mode()
    def encode(self, volumes: Float[np.ndarray, "item channel *space"]) -> list[np.ndarray]:
        """Values of each map, finest first, (item, *grid), as they are stored."""
        size = max(1, _VOXELS_AT_A_TIME // int(np.prod(self.about["shape"][1:])))
        parts = [
            self.vqvae.encode(part.to(self.device))
            for part in torch.from_numpy(volumes).split(size)
        ]
        return [torch.cat(values).cpu().numpy() for values in zip(*parts, strict=True)]

    def with_residuals(
        self, volumes: Float[np.ndarray, "slot channel *space"], seed: int, numbers: Sequence[int]
    ) -> Float[np.ndarray, "slot channel *space"]:
        """Decoded samples of some numbers, each with noise of its own as codes leave it out.

        IntegrityError when the prior's folder does not say what that noise is like.
        """
        residuals = self.prior_about.get("residuals")
        if not residuals:
            raise IntegrityError(
                "The prior knows nothing of what its codes leave out (sample.residual). Make codes "
                "and prior again with `vqmri encode` and `vqmri train_prior`."
            )
        pairs = zip(volumes, numbers, strict=True)
        return np.stack([add_residuals(v, residuals, seed, number) for v, number in pairs])

    def decode_samples(
        self, store: CodeStore, numbers: Sequence[int]
    ) -> Float[np.ndarray, "sample channel *space"]:
        """Some of the published samples, as they were before a file's type rounded them."""
        volumes = self.decode(code_tensors(store.read(numbers), store.num_embeddings))
        settings = store.attributes["sample"]
        if not settings.get("residual"):
            return volumes
        return self.with_residuals(volumes, settings["seed"], numbers)

    def sample(
        self,
        seed: int,
        numbers: Sequence[int],
        choice: Choice,
        covariates: Mapping[str, Any] | None = None,
    ) -> Float[np.ndarray, "sample channel *space"]:
        """The synthetic volumes of some numbers, in their order, all of the same covariates.

        Raises ParamsError for a covariate that the prior does not know.
        """
        rows = encode(self.prior.covariates, [covariates or {}] * self.micro_batch)
        volumes: dict[int, np.ndarray] = {}
        for batch in sorted({number // self.micro_batch for number in numbers}):
            decoded = self.decode(self.draw(seed, batch, choice, rows=rows))
            volumes |= {batch * self.micro_batch + slot: v for slot, v in enumerate(decoded)}
        return np.stack([volumes[number] for number in numbers])
