"""The distribution of codes."""

from vqmri.prior.hierarchy import Prior
from vqmri.prior.objective import nats_per_code
from vqmri.prior.pixelcnn import PixelCNN

__all__ = ["PixelCNN", "Prior", "nats_per_code"]
