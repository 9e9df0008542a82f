"""Synthetic MRI scans: a 3D VQ-VAE, a PixelCNN prior over its codes, and the pipeline around them."""

__version__ = "0.1.0"
