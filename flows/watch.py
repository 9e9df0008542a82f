"""The flow that looks for new scans and tells Prefect, whose automation starts the pipeline."""

import hashlib
import json
from pathlib import Path

from prefect import flow, get_run_logger
from prefect.events import emit_event

from vqmri.layout import Layout
from vqmri.outputs import replace_file
from vqmri.params import PARAMS, Params

ARRIVED = "vqmri.scans.arrived"
"""The event; its resource is `vqmri.raw`."""


@flow(name="watch")
def watch() -> bool:
    """Emit `vqmri.scans.arrived` when the raw folder is not as it was at the last look.

    Files are told apart by name, size and time of change; none is read. Returns whether it emitted.
    """
    root = Path.cwd()
    raw = root / Params.load(root / PARAMS).ingest.raw
    memory = Layout(root).data / ".watched"
    files = sorted(path for path in raw.rglob("*") if path.is_file())
    seen = [(str(p.relative_to(raw)), p.stat().st_size, p.stat().st_mtime_ns) for p in files]
    now = hashlib.sha256(json.dumps(seen).encode()).hexdigest()
    if memory.is_file() and memory.read_text() == now:
        return False
    get_run_logger().info("%d files in %s are not those of the last look", len(files), raw)
    resource = {"prefect.resource.id": "vqmri.raw"}
    emit_event(ARRIVED, resource=resource, payload={"files": len(files)})
    replace_file(memory, now.encode())
    return True
