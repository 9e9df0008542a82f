"""Every way to end, as the docs' table has it."""

import re
import shutil
from collections import namedtuple
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner, Result

from tests.conftest import REPO, tiny_values
from vqmri import errors
from vqmri.cli import main
from vqmri.errors import INTERRUPTED, STORAGE, VqmriError
from vqmri.layout import Layout
from vqmri.outputs import hold

Usage = namedtuple("Usage", "total used free")  # as shutil.disk_usage gives it
PAGE = (REPO / "docs/reliability.md").read_text()


@pytest.fixture
def project(copy_of_finished: Layout, monkeypatch: pytest.MonkeyPatch) -> Layout:
    monkeypatch.chdir(copy_of_finished.root)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    (copy_of_finished.root / "params.yaml").write_text(yaml.safe_dump(tiny_values()))
    return copy_of_finished


def params(**changes: object) -> None:
    values = tiny_values()
    values["train_prior"] |= changes
    Path("params.yaml").write_text(yaml.safe_dump(values))


def vqmri(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def faulty_params(data: Layout, patch: pytest.MonkeyPatch) -> Result:
    params(steps=-1)
    return vqmri("train_prior")


def no_codes(data: Layout, patch: pytest.MonkeyPatch) -> Result:
    shutil.rmtree(data.output("codes"))
    return vqmri("train_prior")


def interrupted(data: Layout, patch: pytest.MonkeyPatch) -> Result:
    def stopped(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    patch.setattr("vqmri.stages.encode.encode_shard", stopped)
    return vqmri("encode")


def full_disk(data: Layout, patch: pytest.MonkeyPatch) -> Result:
    patch.setattr(shutil, "disk_usage", lambda place: Usage(100, 100, 0))
    return vqmri("encode")


def in_use(data: Layout, patch: pytest.MonkeyPatch) -> Result:
    with hold(data.work / "codes.lock"):
        return vqmri("encode")


def other_codes(data: Layout, patch: pytest.MonkeyPatch) -> Result:
    weights = data.output("vqvae") / "weights.safetensors"
    before = weights.read_bytes()
    weights.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    return vqmri("sample")


def diverges(data: Layout, patch: pytest.MonkeyPatch) -> Result:
    params(learning_rate=1e30, warmup=1)
    return vqmri("train_prior")


WAYS: list[tuple[int, Callable[[Layout, pytest.MonkeyPatch], Result], str]] = [
    (0, lambda data, patch: vqmri("verify", "data/codes"), "as they were published"),
    (2, faulty_params, "train_prior.steps = -1"),
    (3, no_codes, "Make it with `vqmri encode`"),
    (4, interrupted, "The same command goes on"),
    (5, full_disk, "Nothing was begun. Make room"),
    (6, in_use, "Wait until it ends"),
    (7, other_codes, "Make this output again"),
    (8, diverges, "Lower the learning rate"),
]


@pytest.mark.parametrize(("code", "way", "said"), WAYS, ids=[str(way[0]) for way in WAYS])
def test_a_command_ends_with_its_code_and_says_what_to_do(
    code: int,
    way: Callable[[Layout, pytest.MonkeyPatch], Result],
    said: str,
    project: Layout,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    done = way(project, monkeypatch)
    assert done.exit_code == code, done.output
    assert said in done.output


def test_the_table_has_every_code_and_no_other() -> None:
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type)]
    own = {kind.exit_code for kind in kinds if issubclass(kind, VqmriError)} - {1}
    told = {int(code) for code in re.findall(r"^\| (\d) \|", PAGE, re.MULTILINE)}
    assert {0, STORAGE, INTERRUPTED} | own == told == {way[0] for way in WAYS}
