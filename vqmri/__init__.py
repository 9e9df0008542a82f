"""Synthetic MRI scans: 3D VQ-VAE, PixelCNN prior, and the pipeline around them."""

__version__ = "0.1.0"
