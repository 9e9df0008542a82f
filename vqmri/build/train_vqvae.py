"""Arguments of the VQ-VAE."""

from typing import Any

from vqmri.params import TrainVQVAE


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
        "quantizer": params.quantizer.model_dump(mode="json"),
    }
