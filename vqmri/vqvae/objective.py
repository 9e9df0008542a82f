"""What the VQ-VAE minimises."""

from torch import Tensor
from torch.nn import functional

from vqmri.shapes import Volumes
from vqmri.vqvae.vqvae import Reconstruction

LABEL_WEIGHT = 0.02
"""Of the label map's cross-entropy beside the squared error of intensities.

As negative log-likelihoods, −ln N(x; y, σ²) is the squared error / (2σ²), so with the error itself
at weight 1 a cross-entropy has 2σ²; σ = 0.1 is about what reconstructions reach.
"""


def objective(reconstruction: Reconstruction, volumes: Volumes) -> dict[str, Tensor]:
    """Terms of the loss, scalars: `loss` = `mse` + `quantizer` (+ LABEL_WEIGHT · `cross_entropy`).

    van den Oord et al. 2017, eq. 3. The prior is uniform while this is trained, so the KL term
    is the constant log K and left out. The cross-entropy, in nats, is that of the label map, if
    the volumes have one as their last channel.
    """
    outputs = reconstruction.outputs.float()
    labelled = outputs.shape[1] != volumes.shape[1]
    images = volumes.shape[1] - labelled
    mse = (outputs[:, :images] - volumes[:, :images]).square().mean()
    terms = {"mse": mse, "quantizer": reconstruction.quantizer_loss}
    loss = mse + reconstruction.quantizer_loss
    if labelled:
        labels = volumes[:, -1].long()
        terms["cross_entropy"] = functional.cross_entropy(outputs[:, images:], labels)
        loss = loss + LABEL_WEIGHT * terms["cross_entropy"]
    return {"loss": loss, **terms}
