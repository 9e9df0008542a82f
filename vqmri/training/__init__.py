"""Optimisation, checkpoints, and the folder that a trained model is published in."""
