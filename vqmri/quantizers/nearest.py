"""The one place where distances to a codebook are computed."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vqmri.shapes import Codebook

DISTANCES_PER_CHUNK = 2**24
DISTANCES_PER_CHUNK_ON_CPU = 2**20  # stay in its cache, in memory that is not mapped anew

BLOCK = 64


@torch.no_grad()
def nearest(latents: Float[Tensor, "tokens dim"], codebook: Codebook) -> Int[Tensor, " tokens"]:
    """Index of the nearest codebook vector in Euclidean distance (van den Oord et al. 2017, eq. 1).

    ‖z − e‖² is smallest where ½‖e‖² − z·e is, so ‖z‖² is never computed. Runs in float32 outside
    autocast, because half precision gives wrong neighbours, and in chunks of tokens, so that
    memory holds DISTANCES_PER_CHUNK numbers and never tokens × num_embeddings.
    """
    with torch.autocast(latents.device.type, enabled=False):
        codebook = codebook.float()
        half_norms = codebook.square().sum(dim=1) / 2
        on_cpu = latents.device.type == "cpu"
        most = DISTANCES_PER_CHUNK_ON_CPU if on_cpu else DISTANCES_PER_CHUNK
        size = max(most // codebook.shape[0], 1)
        chunks = latents.float().split(size)
        return torch.cat(
            [_smallest(torch.addmm(half_norms, part, codebook.T, alpha=-1)) for part in chunks]
        )


def _smallest(values: Float[Tensor, "tokens number"]) -> Int[Tensor, " tokens"]:
    """Index of the smallest in each row: first of the blocks, then in the block.

    On the CPU `amin` is vectorised and `argmin` is not: 2,048 numbers take a fourth of the time.
    """
    if values.shape[1] % BLOCK:
        return values.argmin(dim=1)
    blocks = values.unflatten(1, (-1, BLOCK))
    best = blocks.amin(dim=2).argmin(dim=1)
    rows = torch.arange(len(values), device=values.device)
    return best * BLOCK + blocks[rows, best].argmin(dim=1)


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
