"""Prefect flows: how the stages run. What they do is in `vqmri`.

Importing this package sets defaults that must stand before Prefect is imported: no telemetry, and
time enough for the temporary server to come up on a small machine (9 to 35 s on 2 cores, where
Prefect's own limit is 20 s). A value that is already in the environment wins.
"""

import os

os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS", "180")
