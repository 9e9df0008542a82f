"""Outputs that travel: what one clone pushes another pulls, byte for byte, and runs nothing."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import boto3  # type: ignore[import-untyped]
import pytest

from tests.documented import commands
from tests.servers import free_port, process, wait_for
from vqmri.layout import MADE_BY

pytestmark = [pytest.mark.services, pytest.mark.long, pytest.mark.timeout(1200)]


def dvc(root: Path, shell: dict[str, str], *arguments: str) -> str:
    shell = shell | {"PYTHONPATH": str(root)}
    done = subprocess.run(
        ["dvc", *arguments], cwd=root, env=shell, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def bytes_of(root: Path) -> dict[str, bytes]:
    files = (p for name in MADE_BY for p in (root / "data" / name).rglob("*") if p.is_file())
    return {str(path.relative_to(root)): path.read_bytes() for path in files}


def not_in_git(folder: str, names: list[str]) -> list[str]:
    """What a clone does not have: outputs, DVC's cache, MLflow's runs."""
    if Path(folder).name == "data":
        return [name for name in names if name != "raw"]
    return [name for name in names if name in ("cache", "tmp", "mlruns")]


def pulled(checkout: Path, other: Path, shell: dict[str, str]) -> None:
    """Push, and pull in another clone of the same commit, which has nothing of data/."""
    dvc(checkout, shell, "push")
    shutil.copytree(checkout, other, ignore=not_in_git)
    dvc(other, shell, "pull")
    assert bytes_of(other) == bytes_of(checkout)
    assert len(bytes_of(other)) > 50
    assert json.loads(dvc(other, shell, "status", "--json")) == {}
    assert "up to date" in dvc(other, shell, "repro")


@pytest.fixture
def s3(tmp_path: Path, shell: dict[str, str]) -> Iterator[dict[str, str]]:
    """A server that speaks S3, with a bucket; the environment that reaches it."""
    port = free_port()
    keys = {
        "AWS_ACCESS_KEY_ID": "somebody",
        "AWS_SECRET_ACCESS_KEY": "something",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    url, log = f"http://127.0.0.1:{port}", tmp_path / "s3.log"
    command = ("python", "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port))
    with process(tmp_path, shell, log, *command) as server:
        wait_for(f"{url}/moto-api/", server, log)
        boto3.client(
            "s3", endpoint_url=url, region_name=keys["AWS_DEFAULT_REGION"],
            aws_access_key_id=keys["AWS_ACCESS_KEY_ID"],
            aws_secret_access_key=keys["AWS_SECRET_ACCESS_KEY"],
        ).create_bucket(Bucket="scans")  # fmt: skip
        yield keys | {"URL": url}


def test_outputs_travel_by_folder_and_by_s3_and_an_experiment_is_shown(
    checkout: Path, shell: dict[str, str], s3: dict[str, str], tmp_path: Path
) -> None:
    typed = [command[1:] for command in commands("docs/dvc.md", "DVC")]
    smaller = typed.pop(2)
    told = {" ".join(command[:2]): command for command in typed}
    assert list(told) == ["repro", "exp run", "exp show", "plots show", "remote add", "push"]
    dvc(checkout, shell, *told["repro"])
    dvc(checkout, shell, "remote", "add", "--default", "folder", str(tmp_path / "store"))
    pulled(checkout, tmp_path / "by-folder", shell)

    url = s3.pop("URL")
    dvc(checkout, shell, *(part.replace("BUCKET", "scans") for part in told["remote add"]))
    dvc(checkout, shell, "remote", "modify", "store", "endpointurl", url)
    pulled(checkout, tmp_path / "by-s3", shell | s3)

    roles = ("AUTHOR_NAME", "AUTHOR_EMAIL", "COMMITTER_NAME", "COMMITTER_EMAIL")
    shell = shell | {f"GIT_{role}": "a@b.c" for role in roles}
    for command in (["add", "."], ["commit", "--quiet", "-m", "first"]):
        subprocess.run(["git", *command], cwd=checkout, env=shell, check=True)
    dvc(checkout, shell, *told["exp run"])
    shown = dvc(checkout, shell, *told["exp show"], "--json")
    assert all(text in shown for text in ('"hot"', '"temperature": 1.5', "psnr_db"))
    assert "temperature: 1.5" in (checkout / "params.yaml").read_text()
    dvc(checkout, shell, *smaller)
    assert "num_embeddings: 64" in (checkout / "params.yaml").read_text()
    dvc(checkout, shell, *told["plots show"])
    page = (checkout / "dvc_plots/index.html").read_text()
    assert all(name in page for name in ("bits_per_code", "usage_level_0", "mse"))
