"""How codes are drawn."""

from vqmri.params import Sample
from vqmri.prior.choice import Choice


def choice(params: Sample) -> Choice:
    """The settings of a draw, as the prior's samplers take them."""
    return Choice(
        temperature=params.temperature,
        top_k=params.top_k,
        top_p=params.top_p,
        guidance=params.guidance,
    )
