"""Vectors that follow an exponential moving average of the tokens that fall to them."""

import torch
from jaxtyping import Float, Int
from torch import Tensor

from vqmri.quantizers.clusters import dead_codes, draw, totals
from vqmri.quantizers.distributed import Choose, chosen_by_rank_0, sum_over_ranks
from vqmri.quantizers.parts import MovedByData


class EMACodebook(MovedByData):
    """EMA vectors with initialisation from data and restart of dead codes.

    van den Oord et al. 2017, appendix A.1: with n_k the tokens of a batch that fell to code k,
    N_k ← γN_k + (1−γ)n_k, m_k ← γm_k + (1−γ)Σz, e_k = m_k / N_k. N and m start consistent
    (m = eN) and are reset together when a dead code restarts; starting from N = 0 makes unused
    codes explode at the first step.

    All state is in buffers, `initialised` too, so a resumed run does not initialise again. Under
    data parallelism all ranks hold what one process would hold after the whole batch.

    decay: γ
    vectors: (num_embeddings, embedding_dim), zeros until `initialise`
    mean_count: N, (num_embeddings,)
    mean_sum: m, (num_embeddings, embedding_dim)
    initialised: whether `initialise` was called, a scalar
    """

    vectors: Tensor
    mean_count: Tensor
    mean_sum: Tensor
    initialised: Tensor

    def __init__(self, num_embeddings: int, embedding_dim: int, *, decay: float) -> None:
        super().__init__()
        self.decay = decay
        self.register_buffer("vectors", torch.zeros(num_embeddings, embedding_dim))
        self.register_buffer("mean_count", torch.zeros(num_embeddings))
        self.register_buffer("mean_sum", torch.zeros(num_embeddings, embedding_dim))
        self.register_buffer("initialised", torch.tensor(False))

    @torch.no_grad()
    def initialise(self, choose: Choose, tokens: Float[Tensor, "tokens dim"]) -> None:
        """Take the vectors that `choose` makes of all ranks' tokens, each with an equal share N."""
        number = self.vectors.shape[0]
        num_tokens = sum_over_ranks(torch.tensor(tokens.shape[0], device=tokens.device))
        every = torch.ones_like(self.mean_count, dtype=torch.bool)
        self._place(every, chosen_by_rank_0(choose, tokens, number), num_tokens / number)
        self.initialised.fill_(True)

    @torch.no_grad()
    def follow(self, tokens: Float[Tensor, "tokens dim"], codes: Int[Tensor, " tokens"]) -> None:  # type: ignore[override]
        """One step of the averages, then restart the dead codes at random tokens."""
        counts, sums = totals(tokens, codes, self.vectors.shape[0])
        self.mean_count.lerp_(sum_over_ranks(counts).float(), 1 - self.decay)
        self.mean_sum.lerp_(sum_over_ranks(sums), 1 - self.decay)
        self.vectors.copy_(self.mean_sum / self.mean_count.clamp(min=1e-12).unsqueeze(1))
        dead = dead_codes(self.mean_count)
        if dead.any():
            chosen = chosen_by_rank_0(draw, tokens, int(dead.sum()))
            self._place(dead, chosen, self.mean_count.mean())

    def _place(self, which: Tensor, vectors: Tensor, count: Tensor) -> None:
        """Move the codes of the mask `which` to `vectors`, as if each had `count` tokens there."""
        self.vectors[which] = vectors
        self.mean_count[which] = count
        self.mean_sum[which] = vectors * count
