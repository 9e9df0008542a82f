"""Arguments of the VQ-VAE and of its training."""

from collections.abc import Sequence
from typing import Any

from vqmri.params import Augment, TrainVQVAE


def vqvae_arguments(
    params: TrainVQVAE, *, spatial_dims: int, in_channels: int, num_classes: int
) -> dict[str, Any]:
    """What `VQVAE(**arguments)` takes, as plain JSON."""
    return {
        "spatial_dims": spatial_dims,
        "in_channels": in_channels,
        "num_classes": num_classes,
        "channels": params.channels,
        "num_res_blocks": params.num_res_blocks,
        "downsamplings": [level.downsampling for level in params.levels],
        "num_embeddings": [level.num_embeddings for level in params.levels],
        "embedding_dim": params.embedding_dim,
        "patch": params.patch,
        "quantizer": params.quantizer.model_dump(mode="json"),
    }


def augmentation_arguments(params: Augment, *, spacing: Sequence[float]) -> dict[str, Any]:
    """What `Augmentation` takes beside device and labels. spacing: mm per axis, () for pictures."""
    translation = [params.translation / size for size in spacing or (1.0, 1.0)]
    return params.model_dump() | {"translation": translation}
