"""What the VQ-VAE minimises."""

from typing import NamedTuple

from torch import Tensor

from vqmri.shapes import Volumes
from vqmri.vqvae.vqvae import Reconstruction


class Terms(NamedTuple):
    """loss = mse + quantizer; each a scalar."""

    loss: Tensor
    mse: Tensor
    quantizer: Tensor


def objective(reconstruction: Reconstruction, volumes: Volumes) -> Terms:
    """Mean squared error over all voxels plus the quantizers' terms.

    van den Oord et al. 2017, eq. 3. The prior is uniform while this is trained, so the KL term
    is the constant log K and left out.
    """
    mse = (reconstruction.volumes.float() - volumes).square().mean()
    return Terms(mse + reconstruction.quantizer_loss, mse, reconstruction.quantizer_loss)
