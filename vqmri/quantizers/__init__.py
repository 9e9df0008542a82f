"""Latents to codes and back."""

from vqmri.quantizers.base import Quantized, Quantizer
from vqmri.quantizers.ema import EMAQuantizer
from vqmri.quantizers.nearest import nearest

__all__ = ["EMAQuantizer", "Quantized", "Quantizer", "nearest"]
