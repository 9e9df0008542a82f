"""Two axes through every stage, from generated files of MNIST's and CIFAR-10's formats."""

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tests.conftest import REPO, run_stages
from vqmri.codes import CodeStore
from vqmri.outputs.manifest import digest
from vqmri.scans import idx
from vqmri.scans.store import VolumeStore
from vqmri.stages.findings import read_study
from vqmri.stages.use import TABLE


def preset(name: str) -> dict[str, Any]:
    """A preset with its amounts made small."""
    values: dict[str, Any] = yaml.safe_load((REPO / f"vqmri/presets/{name}.yaml").read_text())
    values["train_vqvae"] |= {"channels": [8, 8], "steps": 6, "batch_size": 8, "embedding_dim": 4}
    values["train_vqvae"]["levels"][0]["num_embeddings"] = 16
    values["encode"]["items_per_shard"] = 16
    values["train_prior"] |= {
        "channels": 8,
        "num_layers": 3,
        "heads": 2,
        "steps": 6,
        "num_attention": 1,
    }
    values["sample"]["count"] = 20
    values["study"] = {"count": 10, "temperatures": [1.0]}
    values["evaluate"] |= {"montages": 2, "gallery": 10}
    values["use"]["steps"] = 3
    return values


def write_mnist(folder: Path) -> None:
    random = np.random.default_rng(0)
    for part, count in (("train", 40), ("t10k", 20)):
        images = random.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        idx.write(folder / f"{part}-images-idx3-ubyte.gz", images)
        labels = (np.arange(count) % 10).astype(np.uint8)
        idx.write(folder / f"{part}-labels-idx1-ubyte.gz", labels)


def write_cifar10(folder: Path) -> None:
    random = np.random.default_rng(0)
    folder.mkdir(parents=True)
    classes = preset("cifar10")["sample"]["covariates"]["class"]
    (folder / "batches.meta.txt").write_text("\n".join(classes) + "\n")
    for name in ("data_batch_1", "data_batch_2", "test_batch"):
        records = random.integers(0, 256, (20, 3073), dtype=np.uint8)
        records[:, 0] = np.arange(20) % 10
        (folder / f"{name}.bin").write_bytes(records.tobytes())


@pytest.mark.parametrize(
    ("name", "write", "shape"),
    [("mnist", write_mnist, (1, 28, 28)), ("cifar10", write_cifar10, (3, 32, 32))],
)
def test_a_preset_of_pictures_goes_through_the_whole_pipeline(
    tmp_path: Path, name: str, write: Any, shape: tuple[int, ...]
) -> None:
    write(tmp_path / "data/raw" / name)
    data, _ = run_stages(preset(name), tmp_path)
    store = VolumeStore(data.output("volumes"))
    assert store.shape == shape
    assert (store.spacing, store.orientation) == ((), None)
    assert len(store.of_split("train")) == 40
    assert len(store.of_split("held_out")) == 20

    images = idx.load(data.output("samples") / "images.idx.gz")
    assert images.shape == (20, *shape[1:], *([3] if shape[0] == 3 else []))
    assert images.std() > 0
    with (data.output("samples") / "samples.tsv").open() as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    covariate = "digit" if name == "mnist" else "class"
    classes = preset(name)["sample"]["covariates"][covariate]
    assert [row[covariate] for row in rows] == [str(c) for c in classes] * 2
    codes = CodeStore(data.output("samples"))
    assert codes.grids == [tuple(n // 4 for n in shape[1:])]

    row = json.loads((data.output("use") / TABLE).read_text())[0]
    assert (row["name"], row["real"], row["synthetic"]) == (covariate, 40, 20)
    for key in ("real", "synthetic", "both", "obeyed", "reconstructed"):
        assert 0 <= row["figures"][key] <= 1
    report = (data.output("report") / "report.html").read_text()
    assert "Study of the prior" in report
    assert (data.output("report") / "study.png").is_file()


def test_the_likeliest_codes_are_one_item_per_class(tmp_path: Path) -> None:
    write_mnist(tmp_path / "data/raw/mnist")
    values = preset("mnist") | {"study": {"count": 20, "temperatures": [1.0]}}
    data, _ = run_stages(values, tmp_path)
    inputs = {name: digest(data.output(name)) for name in ("volumes", "vqvae", "codes", "prior")}
    rows = {row["way"]: row for row in read_study(data.output("study"), inputs).rows}
    assert rows["prior, likeliest code"]["items"] == 20
    assert rows["prior, likeliest code"]["unique"] <= 10
    assert rows["prior, T = 1"]["unique"] == 20
