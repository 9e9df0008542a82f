"""Two processes train what one does on the same batches."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

from tests.conftest import REPO, tiny_values
from vqmri.layout import MADE_BY, Layout
from vqmri.outputs import verify

STEPS = 20
OUTPUT_OF = {stage: output for output, stage in MADE_BY.items()}


def started(ranks: int, stage: str, root: Path) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    return subprocess.run(
        [sys.executable, *(launcher if ranks > 1 else []), "-m", "tests.stages.ranked", stage,
         str(root)],
        cwd=REPO, env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def trained(
    ranks: int, stage: str, finished: Layout, root: Path, **changes: Any
) -> dict[str, torch.Tensor]:
    """The weights that so many processes end with."""
    shutil.copytree(finished.root, root)
    values = tiny_values()
    values[stage] |= {"steps": STEPS, "batch_size": 8} | changes
    # with one channel to a group, biases before a norm have no gradient but rounding errors
    values["train_vqvae"]["channels"] = [16, 32]
    (root / "params.yaml").write_text(yaml.safe_dump(values))
    done = started(ranks, stage, root)
    assert done.returncode == 0, done.stderr[-4000:]
    folder = Layout(root).output(OUTPUT_OF[stage])
    verify(folder)
    return load_file(folder / "weights.safetensors")


AUGMENT = {"flips": [0], "rotation": 10.0, "scaling": 0.1, "translation": 10.0, "contrast": 0.2}
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "vqvae": ("train_vqvae", {}),
    "vqvae, all that is random or averaged": (
        "train_vqvae",
        {"augment": AUGMENT, "patch": [16, 16, 16], "average_decay": 0.9},
    ),
    # dropout is another on each process
    "prior": ("train_prior", {"dropout": 0.0, "conditions": []}),
}


@pytest.mark.parametrize("case", CASES)
def test_two_processes_train_what_one_does(case: str, finished: Layout, tmp_path: Path) -> None:
    stage, changes = CASES[case]
    alone = trained(1, stage, finished, tmp_path / "one", **changes)
    together = trained(2, stage, finished, tmp_path / "two", **changes)
    before = load_file(finished.output(OUTPUT_OF[stage]) / "weights.safetensors")
    assert any(not torch.equal(alone[name], before[name]) for name in alone)
    for name, expected in alone.items():
        off = (together[name].float() - expected.float()).norm()
        assert off <= 1e-5 * expected.float().norm(), name


def test_a_batch_that_cannot_be_shared_out_is_refused(finished: Layout, tmp_path: Path) -> None:
    shutil.copytree(finished.root, tmp_path / "project")
    values = tiny_values()
    values["train_vqvae"] |= {"batch_size": 3}
    (tmp_path / "project/params.yaml").write_text(yaml.safe_dump(values))
    done = started(2, "train_vqvae", tmp_path / "project")
    assert done.returncode != 0
    assert "batch_size = 3: it must be a multiple of the 2 processes" in done.stderr
