"""The one place where distances to a codebook are computed."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vqmri.shapes import Codebook

TOKENS_PER_CHUNK = 8192


@torch.no_grad()
def nearest(latents: Float[Tensor, "tokens dim"], codebook: Codebook) -> Int[Tensor, " tokens"]:
    """Index of the nearest codebook vector in Euclidean distance (van den Oord et al. 2017, eq. 1).

    ‖z − e‖² is smallest where ½‖e‖² − z·e is, so ‖z‖² is never computed. Runs in float32 outside
    autocast, because half precision gives wrong neighbours, and in chunks of tokens, so that
    memory holds TOKENS_PER_CHUNK × num_embeddings numbers and never tokens × num_embeddings.
    """
    with torch.autocast(latents.device.type, enabled=False):
        codebook = codebook.float()
        half_norms = codebook.square().sum(dim=1) / 2
        chunks = latents.float().split(TOKENS_PER_CHUNK)
        return torch.cat(
            [torch.addmm(half_norms, chunk, codebook.T, alpha=-1).argmin(dim=1) for chunk in chunks]
        )


@torch.no_grad()
def squared_distances(
    latents: Float[Tensor, "tokens dim"], codebook: Codebook
) -> Float[Tensor, "tokens num_embeddings"]:
    """‖z − e‖² of every token to every code, in float32 outside autocast.

    Sums squared differences: ‖z‖² − 2z·e + ‖e‖² loses the small distances of long vectors, and
    those are the ones that a softmax over −d/τ weighs most.
    """
    with torch.autocast(latents.device.type, enabled=False):
        mode = "donot_use_mm_for_euclid_dist"
        return torch.cdist(latents.float(), codebook.float(), compute_mode=mode).square()
