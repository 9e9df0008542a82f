"""The codebook that follows an exponential moving average of the encoder's outputs."""

from typing import final

import torch
from jaxtyping import Float
from torch import Tensor

from vqmri.quantizers.base import Quantized, Quantizer, commitment_loss, straight_through
from vqmri.quantizers.nearest import nearest
from vqmri.shapes import Codes, Latents

DEAD_BELOW = 0.02
"""A code is dead when its average use is below this share of the mean use of all codes."""


@final
class EMAQuantizer(Quantizer):
    """EMA codebook with initialisation from data and restart of dead codes.

    van den Oord et al. 2017, appendix A.1: with n_k the vectors of a batch that fell to code k,
    N_k ← γN_k + (1−γ)n_k, m_k ← γm_k + (1−γ)Σz, e_k = m_k / N_k. Only β‖z_e − sg[e]‖² stays in
    the loss. N and m start consistent (m = eN, drawn from the first batch) and are reset together
    when a dead code restarts; starting from N = 0 makes unused codes explode at the first step.

    All state is in buffers, `initialised` too, so a resumed run does not initialise again.
    """

    codebook: Tensor
    mean_count: Tensor
    mean_sum: Tensor
    initialised: Tensor

    def __init__(
        self, num_embeddings: int, embedding_dim: int, *, decay: float, commitment_cost: float
    ) -> None:
        super().__init__()
        self.num_embeddings = num_embeddings
        self.embedding_dim = embedding_dim
        self.decay = decay
        self.commitment_cost = commitment_cost
        self.register_buffer("codebook", torch.zeros(num_embeddings, embedding_dim))
        self.register_buffer("mean_count", torch.zeros(num_embeddings))
        self.register_buffer("mean_sum", torch.zeros(num_embeddings, embedding_dim))
        self.register_buffer("initialised", torch.tensor(False))

    def forward(self, latents: Latents) -> Quantized:
        with torch.autocast(latents.device.type, enabled=False):
            latents = latents.float()
            tokens = latents.detach().movedim(1, -1).reshape(-1, self.embedding_dim)
            if self.training and not self.initialised:
                self._initialise(tokens)
            codes = nearest(tokens, self.codebook)
            grid_codes = codes.reshape(latents.shape[0], *latents.shape[2:])
            quantized = self.decode(grid_codes)
            if self.training:
                self._update(tokens, codes)
            loss = self.commitment_cost * commitment_loss(latents, quantized)
            return Quantized(straight_through(latents, quantized), grid_codes, loss)

    def decode(self, codes: Codes) -> Latents:
        return self.codebook[codes].movedim(-1, 1)

    @torch.no_grad()
    def _initialise(self, tokens: Float[Tensor, "tokens dim"]) -> None:
        count = tokens.shape[0] / self.num_embeddings
        self._restart(torch.ones_like(self.mean_count, dtype=torch.bool), tokens, count)
        self.initialised.fill_(True)

    @torch.no_grad()
    def _update(self, tokens: Float[Tensor, "tokens dim"], codes: Tensor) -> None:
        count = torch.bincount(codes, minlength=self.num_embeddings).to(tokens.dtype)
        total = torch.zeros_like(self.mean_sum).index_add_(0, codes, tokens)
        self.mean_count.lerp_(count, 1 - self.decay)
        self.mean_sum.lerp_(total, 1 - self.decay)
        mean_use = float(self.mean_count.mean())
        dead = self.mean_count < DEAD_BELOW * mean_use
        self.codebook.copy_(self.mean_sum / self.mean_count.clamp(min=1e-12).unsqueeze(1))
        if dead.any():
            self._restart(dead, tokens, mean_use)

    def _restart(self, which: Tensor, tokens: Float[Tensor, "tokens dim"], count: float) -> None:
        """Move the codes of the mask `which` onto random tokens, as if each had `count` of them."""
        wanted = int(which.sum())
        order = torch.randperm(tokens.shape[0], device=tokens.device)
        repeats = -(-wanted // tokens.shape[0])
        chosen = tokens[order.repeat(repeats)[:wanted]]
        self.codebook[which] = chosen
        self.mean_count[which] = count
        self.mean_sum[which] = chosen * count
