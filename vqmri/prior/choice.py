"""From logits and noise to a code: the only place where a code is chosen."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from vqmri.prior.arithmetic import compiled, copy, exponential


@dataclass(frozen=True)
class Choice:
    """How a code is drawn from its logits.

    guidance: w of u + w (c − u), for logits c with the covariates and u without them (Ho & Salimans
        2022, arXiv:2207.12598); 1 is the prior itself
    temperature: then divides the logits; at 0 there is no draw but the likeliest code
    top_k: then keeps so many of the likeliest codes (Fan et al. 2018), None for all
    top_p: then keeps the fewest likeliest codes that have this probability together (Holtzman et
        al. 2020, arXiv:1904.09751), None for all

    The order of the last three is that of the usual samplers of language models. Codes as likely
    as the last one kept are kept too. Raises ValueError for a number out of range.
    """

    temperature: float = 1.0
    top_k: int | None = None
    top_p: float | None = None
    guidance: float = 1.0

    def __post_init__(self) -> None:
        if self.temperature < 0:
            raise ValueError(f"temperature {self.temperature} is negative")
        if self.top_k is not None and self.top_k < 1:
            raise ValueError(f"top_k {self.top_k} keeps no code")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise ValueError(f"top_p {self.top_p} is not in (0, 1]")

    @property
    def plain(self) -> tuple[float, float, int, float]:
        """What `choose` takes: guidance, temperature, top_k and top_p, 0 and 1 for none."""
        top_p = 1.0 if self.top_p is None else self.top_p
        return self.guidance, self.temperature, self.top_k or 0, top_p


@compiled()
def choose(logits: Any, noise: Any, choice: Any, scores: Any) -> int:
    """The code of one position: argmin of E_k / p_k for exponential noise E.

    The first to arrive in a race with rates p is a categorical draw from p, and it is the same code
    when p differs in its last bits. (−ln E is Gumbel noise, and this its argmax.)

    logits: (way, num_embeddings), the second way without covariates if there is one
    noise: (num_embeddings,), standard exponential
    choice: `Choice.plain`
    scores: (num_embeddings,), written over
    """
    guidance, temperature, top_k, top_p = choice
    number = scores.size
    if logits.shape[0] == 2:
        weight = scores.dtype.type(guidance)
        for k in range(number):
            scores[k] = logits[1, k] + weight * (logits[0, k] - logits[1, k])
    else:
        copy(scores, logits[0])
    highest = scores[0]
    for k in range(number):
        highest = max(highest, scores[k])
    if temperature == 0:
        return _first(scores, highest)
    scale = scores.dtype.type(1 / temperature)
    for k in range(number):
        scores[k] = exponential((scores[k] - highest) * scale)
    if 0 < top_k < number:
        _keep(scores, top_k, False)
    if top_p < 1:
        total = scores.dtype.type(0)
        for k in range(number):
            total += scores[k]
        _keep(scores, top_p * total, True)
    lowest = scores.dtype.type(np.inf)
    for k in range(number):
        scores[k] = noise[k] / scores[k]
        lowest = min(lowest, scores[k])
    return _first(scores, lowest)


@compiled(inner=True)
def _first(scores: Any, value: Any) -> int:
    for k in range(scores.size):
        if scores[k] == value:
            return k
    raise ValueError("logits are not finite")


@compiled(inner=True)
def _keep(scores: Any, enough: float, is_mass: bool) -> None:
    """Set to zero all but the largest scores that are `enough` in number, or in their sum."""
    lowest = scores.dtype.type(np.inf)
    held = 0.0
    while held < enough:
        highest = scores.dtype.type(-1)  # of those not kept yet
        for k in range(scores.size):
            if scores[k] < lowest:
                highest = max(highest, scores[k])
        if highest <= 0:
            return
        lowest = highest
        for k in range(scores.size):
            if scores[k] == lowest:
                held += scores[k] if is_mass else 1
    for k in range(scores.size):
        if scores[k] < lowest:
            scores[k] = 0


def choose_all(
    logits: Float[Tensor, "way *position num_embeddings"],
    noise: Float[Tensor, "*position num_embeddings"],
    choice: Choice,
) -> Int[Tensor, "*position"]:
    """`choose` for many positions on any device, in the words of PyTorch."""
    scores = logits[0]
    if len(logits) == 2:
        scores = logits[1] + choice.guidance * (logits[0] - logits[1])
    if choice.temperature == 0:
        return scores.argmax(dim=-1)
    scores = (scores / choice.temperature).softmax(dim=-1)
    if choice.top_k is not None and choice.top_k < scores.shape[-1]:
        lowest = scores.topk(choice.top_k, dim=-1).values[..., -1:]
        scores = scores.where(scores >= lowest, 0.0)
    if choice.top_p is not None:
        ordered = scores.sort(dim=-1, descending=True).values
        enough = choice.top_p * ordered.sum(dim=-1, keepdim=True)
        kept = ordered.cumsum(dim=-1) - ordered < enough
        lowest = ordered.where(kept, torch.inf).amin(dim=-1, keepdim=True)
        scores = scores.where(scores >= lowest, 0.0)
    return (noise / scores).argmin(dim=-1)
