"""Latents to codes and back."""

from collections.abc import Callable
from typing import Any, Literal

from vqmri.quantizers.base import Quantized, Quantizer
from vqmri.quantizers.clusters import Initialisation
from vqmri.quantizers.codebook_loss import CodebookLossQuantizer
from vqmri.quantizers.ema import EMAQuantizer
from vqmri.quantizers.nearest import nearest, squared_distances
from vqmri.quantizers.parts import one_update
from vqmri.quantizers.projected import ProjectedQuantizer

Kind = Literal["codebook_loss", "ema", "projected"]
"""Name of a way to quantize, as params.yaml has it."""

KINDS: dict[Kind, Callable[..., Quantizer]] = {
    "codebook_loss": CodebookLossQuantizer,
    "ema": EMAQuantizer,
    "projected": ProjectedQuantizer,
}
"""The class of each kind; it takes num_embeddings, embedding_dim and options of its own."""


def build_quantizer(
    kind: Kind, *, num_embeddings: int, embedding_dim: int, **options: Any
) -> Quantizer:
    """A quantizer by the name of its kind.

    embedding_dim: length of a codebook vector
    options: the further arguments of its class
    Raises ValueError for an unknown kind.
    """
    if kind not in KINDS:
        raise ValueError(f"the kind of quantizer is {kind!r}; allowed: {', '.join(KINDS)}")
    return KINDS[kind](num_embeddings, embedding_dim, **options)


__all__ = [
    "KINDS",
    "CodebookLossQuantizer",
    "EMAQuantizer",
    "Initialisation",
    "Kind",
    "ProjectedQuantizer",
    "Quantized",
    "Quantizer",
    "build_quantizer",
    "nearest",
    "one_update",
    "squared_distances",
]
