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


def started(ranks: int, stage: str, root: Path, *end: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"OMP_NUM_THREADS": "1", "GLOO_SOCKET_IFNAME": "lo"}
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
    return subprocess.run(
        [sys.executable, *(launcher if ranks > 1 else []), "-m", "tests.stages.ranked", stage,
         str(root), *end],
        cwd=REPO, env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def prepared(stage: str, finished: Layout, root: Path, **changes: Any) -> Path:
    """A project whose stage has other values."""
    shutil.copytree(finished.root, root)
    values = tiny_values()
    values[stage] |= {"steps": STEPS, "batch_size": 8} | changes
    # with one channel to a group, biases before a norm have no gradient but rounding errors
    values["train_vqvae"]["channels"] = [16, 32]
    (root / "params.yaml").write_text(yaml.safe_dump(values))
    return root


def trained(ranks: int, stage: str, root: Path) -> dict[str, torch.Tensor]:
    """The weights that so many processes end with."""
    done = started(ranks, stage, root)
    assert done.returncode == 0, done.stderr[-4000:]
    folder = Layout(root).output(OUTPUT_OF[stage])
    verify(folder)
    return load_file(folder / "weights.safetensors")


def assert_near(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    """Within 1e-5 of each tensor's length."""
    for name, value in expected.items():
        off = (found[name].float() - value.float()).norm()
        assert off <= 1e-5 * value.float().norm(), name


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


@pytest.mark.parametrize(
    "case", [c if "," in c else pytest.param(c, marks=pytest.mark.long) for c in CASES]
)
def test_two_processes_train_what_one_does(case: str, finished: Layout, tmp_path: Path) -> None:
    stage, changes = CASES[case]
    one, two = (prepared(stage, finished, tmp_path / name, **changes) for name in ("one", "two"))
    alone, together = trained(1, stage, one), trained(2, stage, two)
    before = load_file(finished.output(OUTPUT_OF[stage]) / "weights.safetensors")
    assert any(not torch.equal(alone[name], before[name]) for name in alone)
    assert_near(together, alone)


@pytest.mark.parametrize(
    "options",
    [
        {"kind": "ema", "decay": 0.9},
        pytest.param({"kind": "codebook_loss"}, marks=pytest.mark.long),
    ],
)
def test_two_processes_go_on_in_parts_where_one_was_cut_off(
    options: dict[str, Any], finished: Layout, tmp_path: Path
) -> None:
    """From a checkpoint, so that the vectors are there: they start from a batch's first part."""
    changes = {"quantizer": options | {"commitment_cost": 0.25}, "micro_batch": 2}
    one = prepared("train_vqvae", finished, tmp_path / "one", **changes)
    assert started(1, "train_vqvae", one, f"cut:{STEPS // 2}").returncode == 9
    two = shutil.copytree(one, tmp_path / "two")
    assert_near(trained(2, "train_vqvae", two), trained(1, "train_vqvae", one))


def test_what_fails_on_one_process_ends_all_and_is_told(finished: Layout, tmp_path: Path) -> None:
    root = prepared("train_vqvae", finished, tmp_path / "project", micro_batch=2)
    done = started(2, "train_vqvae", root, "fail:3")
    assert done.returncode != 0
    assert "OutOfMemoryError: train_vqvae: out of memory on cpu" in done.stderr
    assert "At a time 2 of a batch's 8 items pass through the model: lower train_vq" in done.stderr


def test_a_batch_that_cannot_be_shared_out_is_refused(finished: Layout, tmp_path: Path) -> None:
    shutil.copytree(finished.root, tmp_path / "project")
    values = tiny_values()
    values["train_vqvae"] |= {"batch_size": 3}
    (tmp_path / "project/params.yaml").write_text(yaml.safe_dump(values))
    done = started(2, "train_vqvae", tmp_path / "project")
    assert done.returncode != 0
    assert "batch_size = 3: it must be a multiple of the 2 processes" in done.stderr
