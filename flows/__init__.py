"""Prefect flows: how the stages run. What they do is in `vqmri`. Settings are in prefect.toml."""
