"""Runs, metrics and models, remembered."""
