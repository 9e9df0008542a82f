"""A stage makes the same when the tracking server is dead, or takes a call and never answers."""

import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path

import pytest
import yaml

from tests.conftest import REPO, tiny_values
from tests.faults import Record, tell
from tests.servers import free_port
from vqmri.layout import OUTPUT_OF, Layout


@contextmanager
def silent(port: int) -> Iterator[None]:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", port))
        listening.listen(100)
        yield


@pytest.mark.faults
@pytest.mark.parametrize("answers", ["nobody", "never"])
@pytest.mark.parametrize("stage", ["train_prior", pytest.param("sample", marks=pytest.mark.long)])
def test_it_makes_the_same_and_keeps_what_it_wanted_tracked(
    stage: str, answers: str, copy_of_finished: Layout, shell: dict[str, str],
    record_property: Record,
) -> None:  # fmt: skip
    data, port = copy_of_finished, free_port()
    (data.root / "params.yaml").write_text(yaml.safe_dump(tiny_values()))
    manifest = data.output(OUTPUT_OF[stage]) / "MANIFEST.json"
    expected = manifest.read_bytes()
    shutil.rmtree(manifest.parent)
    shell = shell | {"PYTHONPATH": str(REPO), "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{port}"}
    with silent(port) if answers == "never" else nullcontext():
        begin = time.monotonic()
        done = subprocess.run(
            [sys.executable, "-m", "vqmri", stage], cwd=data.root, env=shell,
            capture_output=True, text=True, check=False, timeout=120,
        )  # fmt: skip
        print(f"{time.monotonic() - begin:.1f} s with a server that answers {answers}")
    assert done.returncode == 0, done.stderr
    assert manifest.read_bytes() == expected
    (kept,) = (data.root / "mlruns/spool").glob("*.jsonl")
    assert '"event": "end"' in Path(kept).read_text()
    fault = "MLflow dead" if answers == "nobody" else "MLflow silent"
    tell(record_property, f"{fault} while a stage runs", 1, 1, "same bytes; kept to be sent later")
