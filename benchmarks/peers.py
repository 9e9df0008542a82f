"""MONAI's VQVAE, as its users meet it."""

import torch
from monai.networks.nets import VQVAE
from torch import Tensor, optim
from torch.nn import functional

from benchmarks.contender import Contender, Reconstructed
from vqmri.params import TrainVQVAE

PEER = "MONAI VQVAE"
PEER_BFLOAT16 = "MONAI VQVAE bfloat16"
PEER_SQUARED = "MONAI VQVAE bfloat16 squared error"

PEERS: dict[str, tuple[bool, bool]] = {
    PEER: (False, False),
    PEER_BFLOAT16: (True, False),
    PEER_SQUARED: (True, True),
}
"""Name to (bfloat16, squared error)."""

LAST = "channels-last"
PEER_FAST = f"{PEER_BFLOAT16} {LAST}"
"""The name of PEER_BFLOAT16 built with `channels_last`."""

CHANNELS_LAST = {2: torch.channels_last, 3: torch.channels_last_3d}

WIDTH, NUM_RES_LAYERS, LEARNING_RATE = 64, 2, 3e-4


def build_peer(
    name: str,
    settings: TrainVQVAE,
    *,
    spatial_dims: int,
    device: torch.device,
    channels_last: bool = False,
) -> Contender:
    """The peer with the code grid, codebook size and dimension of `settings`, else its defaults.

    Its defaults that matter here: decay 0.5, a codebook of normal random vectors, β = 0.25. Adam
    at a constant rate and no clipping. The loss is that of MONAI's 3D VQ-VAE tutorial (L1 plus the
    quantizer's), or with the squared error in place of L1. MONAI turns autocast off in its
    quantizer on CUDA only, so on the CPU its distances are in bfloat16 too when the rest is.

    channels_last: weights and volumes lie in memory with the channels last
    """
    bfloat16, squared = PEERS[name]
    [level] = settings.levels
    num_halvings = level.downsampling.bit_length() - 1
    model = VQVAE(
        spatial_dims=spatial_dims,
        in_channels=1,
        out_channels=1,
        channels=(WIDTH,) * num_halvings,
        num_res_channels=(WIDTH,) * num_halvings,
        num_res_layers=NUM_RES_LAYERS,
        downsample_parameters=((2, 4, 1, 1),) * num_halvings,
        upsample_parameters=((2, 4, 1, 1, 0),) * num_halvings,
        num_embeddings=level.num_embeddings,
        embedding_dim=settings.embedding_dim,
    ).to(device)
    layout = CHANNELS_LAST[spatial_dims] if channels_last else torch.preserve_format
    model = model.to(memory_format=layout)
    distance = functional.mse_loss if squared else functional.l1_loss

    def loss(volumes: Tensor) -> Tensor:
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bfloat16):
            reconstruction, quantizer_loss = model(volumes.to(memory_format=layout))
        return distance(reconstruction.float(), volumes) + quantizer_loss

    def reconstruct(volumes: Tensor) -> Reconstructed:
        volumes = volumes.to(memory_format=layout)
        return Reconstructed(model(volumes)[0], [model.index_quantize(volumes)])

    return Contender(
        name=f"{name} {LAST}" if channels_last else name,
        recipe=_recipe(name) + (f", {LAST}" if channels_last else ""),
        model=model,
        optimiser=optim.Adam(model.parameters(), lr=LEARNING_RATE),
        rate=lambda step: LEARNING_RATE,
        loss=loss,
        reconstruct=reconstruct,
        map_names=["level_0"],
        num_embeddings=[level.num_embeddings],
        downsamplings=[level.downsampling],
    )


def _recipe(name: str) -> str:
    bfloat16, squared = PEERS[name]
    distance = "squared error" if squared else "L1 (as MONAI's 3D VQ-VAE tutorial)"
    precision = "bfloat16 autocast" if bfloat16 else "float32"
    return (
        f"{distance} + quantizer loss, Adam {LEARNING_RATE} constant (the tutorial: 1e-4 with "
        f"width 256), width {WIDTH}, {NUM_RES_LAYERS} residual layers, trained in {precision}"
    )
