"""Whoever sends a model, an output or params.yaml wrote every byte of it, the manifest too.

Nothing of it is run and nothing is written outside the output; it ends with its exit code and a
sentence. The payloads make a file, the canary.
"""

import hashlib
import json
import pickle
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
import torch
import yaml
from click.testing import CliRunner, Result
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.codes.test_store import ITEMS_PER_SHARD, MAPS, drawn_codes, write_shards
from tests.conftest import tiny_values
from tests.payloads import PICKLES, pickled, torch_saved, tree
from tests.training.cases import VQVAE_ARGUMENTS, publish, seal, started_vqvae
from vqmri.cli import main
from vqmri.codes import CodeStore, CodeWriter
from vqmri.errors import InputError, IntegrityError, ParamsError, VqmriError
from vqmri.evaluation.features import WeightsFile
from vqmri.outputs import manifest as manifests
from vqmri.outputs import sha256_of
from vqmri.params import Params
from vqmri.prior import Prior
from vqmri.prior.covariates import Categorical, Covariate, to_json
from vqmri.scans.store import VolumeStore, VolumeWriter
from vqmri.tracking import registry
from vqmri.training.checkpoint import load_checkpoint, save_checkpoint
from vqmri.vqvae import VQVAE

SPACE = (8, 8, 8)
HOSTILE = (
    "../../../../evil", "../evil", "/evil", "a/b", "..", "a\0b", "a\nb", "", "x" * 5000, "a b",
    "<script>", "%2e%2e%2f", "..\\evil",
)  # fmt: skip


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    return tmp_path / "canary"


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder of commands, some folders below `tmp_path`."""
    folder = tmp_path / "some" / "folders" / "deep"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return folder


def vqmri(*arguments: str) -> Result:
    return CliRunner().invoke(main, arguments)


def refused(done: Result, code: int, said: str = "") -> None:
    """It ended with this code and a message, and not with a traceback."""
    assert done.exit_code == code, (done.output, done.exception)
    assert isinstance(done.exception, SystemExit)
    assert said in done.output
    assert len(done.output) < 3000


# A generator


def vqvae_arguments() -> dict[str, Any]:
    quantizer = {"kind": "ema", "decay": 0.9, "commitment_cost": 0.25, "initialisation": "data"}
    return VQVAE_ARGUMENTS | {
        "spatial_dims": 3, "num_classes": 0, "in_channels": 2, "downsamplings": [4],
        "num_embeddings": [6], "quantizer": quantizer,
    }  # fmt: skip


def publish_generator(folder: Path, covariates: list[Covariate]) -> Path:
    """A model of two channels, as the registry would hand it out."""
    (folder / "artifacts").mkdir(parents=True)
    model = VQVAE(**vqvae_arguments())
    model(torch.rand(6, 2, *SPACE))
    about = {
        "shape": [2, *SPACE],
        "spacing": [1.0, 1.0, 1.0],
        "channels": [{"name": name, "label_values": []} for name in ("image", "T2w")],
    }
    vqvae = publish(folder / "artifacts/vqvae", model, vqvae_arguments(), about)
    arguments: dict[str, Any] = {
        "grids": [[2, 2, 2]], "num_embeddings": [6], "channels": 8, "num_layers": 3, "kernel": 3,
        "radius": 2, "dropout": 0.0, "covariates": to_json(covariates),
    }  # fmt: skip
    weights = {"vqvae_weights": sha256_of(vqvae / "weights.safetensors")}
    publish(folder / "artifacts/prior", Prior(**arguments), arguments, weights)
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    names = [Categorical("../../site", HOSTILE), Categorical("age\n/", ("1", "2"))]
    return publish_generator(tmp_path_factory.mktemp("generator") / "model", [*names])


@pytest.fixture
def model(made: Path, place: Path) -> Path:
    """The generator in `place`, to be made evil."""
    return shutil.copytree(made, place / "model")


def generate(*options: str) -> Result:
    return vqmri("generate", "--model", "model", "--out", "scans", *options)


def test_the_payloads_are_live(canary: Path) -> None:
    for payload in (pickled, torch_saved):
        if payload is pickled:
            pickle.loads(payload(canary))
        else:
            canary.with_suffix(".pth").write_bytes(payload(canary))
            torch.load(canary.with_suffix(".pth"), weights_only=False)
        assert canary.exists()
        canary.unlink()


@pytest.mark.parametrize("payload", PICKLES)
@pytest.mark.parametrize("part", ["vqvae", "prior"])
@pytest.mark.parametrize("sealed", [True, False])
def test_a_pickle_in_place_of_weights_is_not_read(
    model: Path, canary: Path, payload: str, part: str, sealed: bool
) -> None:
    folder = model / "artifacts" / part
    (folder / "weights.safetensors").write_bytes(PICKLES[payload](canary))
    if sealed:
        describe(folder, lambda whole: whole["about"].update(weights=weights_of(folder)))
    refused(generate(), 7, str(Path("artifacts") / part))
    assert not canary.exists()
    assert not Path("scans").exists()


def weights_of(folder: Path) -> str:
    return sha256_of(folder / "weights.safetensors")


def describe(folder: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    """Change model.json, and publish it as it is then."""
    whole = json.loads((folder / "model.json").read_text())
    change(whole)
    (folder / "model.json").write_text(json.dumps(whole))
    seal(folder)


DESCRIPTIONS: dict[str, Callable[[dict[str, Any]], Any]] = {
    "another class": lambda d: d.update(kind="os.system"),
    "a class in a list": lambda d: d.update(kind=["VQVAE"]),
    "arguments of another": lambda d: d.update(arguments={"command": "touch canary"}),
    "arguments in a list": lambda d: d.update(arguments=[1]),
    "no arguments": lambda d: d.pop("arguments"),
    "a name for a number": lambda d: d["arguments"].update(channels="os"),
    "nothing for a number": lambda d: d["arguments"].update(embedding_dim=None),
    "a negative number": lambda d: d["arguments"].update(channels=[-8, 8]),
    "a huge number": lambda d: d["arguments"].update(channels=[2**20, 2**20]),
    "a code by name": lambda d: d["arguments"]["quantizer"].update(kind="os.system"),
    "no description": lambda d: d.pop("about"),
    "other weights": lambda d: d["about"].update(weights="0" * 64),
    "no shape": lambda d: d["about"].pop("shape"),
    "a shape of text": lambda d: d["about"].update(shape="evil"),
    "a shape of other axes": lambda d: d["about"].update(shape=[2, 8]),
    "no channels": lambda d: d["about"].update(channels=None),
    "a channel too few": lambda d: d["about"]["channels"].pop(),
    "no spacing": lambda d: d["about"].pop("spacing"),
}


@pytest.mark.parametrize("name", DESCRIPTIONS)
def test_a_description_of_something_else_is_refused(model: Path, name: str) -> None:
    describe(model / "artifacts/vqvae", DESCRIPTIONS[name])
    refused(generate(), 7, "artifacts/vqvae")


@pytest.mark.parametrize("text", ["[" * 100_000, "[]", "7", "{", "\0", "{}"])
def test_a_description_that_is_none_is_refused(model: Path, text: str) -> None:
    (model / "artifacts/vqvae/model.json").write_text(text)
    seal(model / "artifacts/vqvae")
    refused(generate(), 7, "model.json")


@pytest.mark.parametrize("name", HOSTILE, ids=lambda name: repr(name[:9]))
def test_a_channels_name_writes_no_file_elsewhere(model: Path, tmp_path: Path, name: str) -> None:
    describe(model / "artifacts/vqvae", lambda d: d["about"]["channels"][1].update(name=name))
    before = tree(tmp_path)
    refused(generate(), 7, "a channel is called")
    assert tree(tmp_path) - {"some/folders/deep/.work"} == before


@pytest.mark.parametrize("suffix", HOSTILE, ids=lambda name: repr(name[:9]))
def test_a_suffix_writes_no_file_elsewhere(model: Path, tmp_path: Path, suffix: str) -> None:
    before = tree(tmp_path)
    refused(generate("--suffix", suffix), 2, "suffix")
    assert tree(tmp_path) == before


def test_covariates_of_any_text_stay_within_the_samples(model: Path, tmp_path: Path) -> None:
    values = {"../../site": list(HOSTILE), "age\n/": [1, "2"]}
    whole = {"count": len(HOSTILE), "seed": 0, "temperature": 1.0, "covariates": values}
    before = tree(tmp_path)
    from vqmri.params import sample_settings
    from vqmri.stages.generate import generate as draw

    draw("model", sample_settings(whole), Path("scans"), Path.cwd())
    new = tree(tmp_path) - before
    assert len(new) > 2 * len(HOSTILE)
    assert {path.split("/")[3] for path in new} == {"scans", ".work"}
    assert all(".." not in path and "evil" not in path for path in new)


# Models of MLflow's


def evil_pyfunc(model: Path, canary: Path) -> None:
    """Makes a generator one that runs code in all the ways that MLflow knows when it is loaded."""
    (model / "code").mkdir()
    touch = f"import pathlib\npathlib.Path({str(canary)!r}).touch()\n"
    loader = "class Model:\n    predict = print\ndef _load_pyfunc(path):\n    return Model()\n"
    (model / "code/evil.py").write_text(touch + loader)
    (model / "code/vqmri").mkdir()
    (model / "code/vqmri/__init__.py").write_text(touch)
    (model / "model.py").write_text(touch)
    (model / "python_model.pkl").write_bytes(pickled(canary))
    flavour = {"loader_module": "evil", "code": "code", "python_version": "3.11"}
    (model / "MLmodel").write_text(yaml.safe_dump({"flavors": {"python_function": flavour}}))


@pytest.fixture
def without_evil_modules(monkeypatch: pytest.MonkeyPatch) -> None:
    """What MLflow adds to the path and the modules goes again."""
    import sys

    monkeypatch.setattr(sys, "path", [*sys.path])
    monkeypatch.setitem(sys.modules, "evil", None)
    monkeypatch.delitem(sys.modules, "evil")


@pytest.mark.usefixtures("without_evil_modules")
@pytest.mark.filterwarnings("ignore")
def test_a_models_code_is_not_run(model: Path, canary: Path) -> None:
    evil_pyfunc(model, canary)
    done = generate()
    assert done.exit_code == 0, done.output
    assert not canary.exists()
    # MLflow itself runs it
    mlflow.pyfunc.load_model(str(model))
    assert canary.exists()


@pytest.mark.filterwarnings("ignore")
def test_code_of_a_model_in_the_registry_is_not_run(
    model: Path, canary: Path, registry_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evil_pyfunc(model, canary)
    with registry.answering(registry_root), mlflow.start_run(experiment_id="0") as run:
        mlflow.log_artifacts(str(model), "evil")
        client = mlflow.MlflowClient()
        client.create_registered_model("evil")
        client.create_model_version("evil", f"{run.info.artifact_uri}/evil", run.info.run_id)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{registry_root}/mlruns/mlflow.db")
    done = vqmri("generate", "--model", "models:/evil/1", "--out", "scans")
    assert done.exit_code == 0, done.output
    assert not canary.exists()


# Checkpoints and weights of features


@pytest.mark.parametrize("payload", PICKLES)
def test_a_pickle_in_place_of_a_checkpoint_is_not_read(
    tmp_path: Path, canary: Path, payload: str
) -> None:
    data = PICKLES[payload](canary)
    folder = tmp_path / "state"
    folder.mkdir()
    (folder / f"step-00000007-{hashlib.sha256(data).hexdigest()}.safetensors").write_bytes(data)
    net = torch.nn.Linear(2, 2)
    with pytest.raises(IntegrityError, match=r"step-00000007.*Remove it"):
        load_checkpoint(folder, net, torch.optim.AdamW(net.parameters()))
    assert not canary.exists()


def test_a_checkpoint_of_another_model_or_name_is_not_gone_on_from(tmp_path: Path) -> None:
    net, other = torch.nn.Linear(2, 2), torch.nn.Linear(3, 2)
    (tmp_path / "step-x.safetensors").touch()
    (tmp_path / "step-1-2.safetensors").touch()
    optimiser = torch.optim.AdamW(net.parameters())
    assert load_checkpoint(tmp_path, net, optimiser) == (0, [], {})
    save_checkpoint(tmp_path, 3, other, torch.optim.AdamW(other.parameters()), [], {})
    with pytest.raises(IntegrityError, match="no checkpoint of this training"):
        load_checkpoint(tmp_path, net, optimiser)


@pytest.mark.parametrize("payload", PICKLES)
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_a_pickle_in_place_of_weights_of_features_is_not_read(
    tmp_path: Path, canary: Path, payload: str, suffix: str
) -> None:
    path = tmp_path / f"resnet{suffix}"
    path.write_bytes(PICKLES[payload](canary))
    with pytest.raises(InputError, match="no file of weights"):
        WeightsFile(path)
    assert not canary.exists()


# Manifests


@pytest.fixture
def output(tmp_path: Path) -> Path:
    folder = tmp_path / "deep" / "output"
    folder.mkdir(parents=True)
    (folder / "item").write_text("published")
    (tmp_path / "secret").write_text("not published")
    seal(folder)
    return folder


def rewrite(folder: Path, **changes: Any) -> None:
    """With a checksum that is right: whoever writes a manifest can make one."""
    path = folder / "MANIFEST.json"
    content = json.loads(path.read_text()) | changes
    del content["checksum"]
    checksum = hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
    text = json.dumps(content | {"checksum": checksum}, indent=1, sort_keys=True)
    path.write_text(f"{text}\n")


NAMES = ["../../secret", "item/../../../secret", "/etc/hostname", "..", ".", "", "a\0b"]


@pytest.mark.parametrize("name", [*NAMES, "{root}/secret"])
def test_a_manifest_names_nothing_outside_its_folder(
    output: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked: list[Path] = []

    def look(path: Path) -> str:
        looked.append(path)
        return "0" * 64

    monkeypatch.setattr(manifests, "sha256_of", look)
    rewrite(output, items={name.format(root=tmp_path): sha256_of(tmp_path / "secret")})
    refused(vqmri("verify", str(output)), 7, "no file below the folder")
    assert looked == []


def test_a_folder_in_an_output_that_leads_outside_is_not_followed(
    output: Path, tmp_path: Path
) -> None:
    (output / "link").symlink_to(tmp_path)
    rewrite(output, items={"link/secret": sha256_of(tmp_path / "secret")})
    refused(vqmri("verify", str(output)), 7, "leads out of")


def test_a_file_that_is_a_link_into_dvcs_cache_is_read(output: Path, tmp_path: Path) -> None:
    (output / "item").rename(tmp_path / "cached")
    (output / "item").symlink_to(tmp_path / "cached")
    assert vqmri("verify", str(output)).exit_code == 0


@pytest.mark.parametrize(
    "items", [["item"], {"item": None}, {"item": ["x"]}, "item", 7, None], ids=str
)
def test_a_manifest_of_another_form_is_refused(output: Path, items: Any) -> None:
    rewrite(output, items=items)
    refused(vqmri("verify", str(output)), 7, "MANIFEST.json is damaged")


@pytest.mark.parametrize("text", ["[" * 100_000, "[]", "", "null", '{"__class__": "os"}'])
def test_a_manifest_that_is_none_is_refused(output: Path, text: str) -> None:
    (output / "MANIFEST.json").write_text(text)
    refused(vqmri("verify", str(output)), 7, "MANIFEST.json is damaged")


# Stores


@pytest.fixture
def codes(tmp_path: Path) -> Path:
    folder = tmp_path / "codes"
    writer = CodeWriter(folder)
    writer.create(5, MAPS, ITEMS_PER_SHARD)
    write_shards(writer, drawn_codes(), [0, 1, 2])
    writer.finish({"downsamplings": [4, 4, 8, 8]})
    return folder


@pytest.fixture
def volumes(tmp_path: Path) -> Path:
    from tests.scans.test_store import IMAGE, record

    folder = tmp_path / "volumes"
    writer = VolumeWriter(folder)
    writer.create(2, 1, (4, 6, 5))
    writer.write_shard(0, np.zeros((2, 1, 4, 6, 5), np.float32))
    writer.finish([record(0), record(1)], (1.0, 1.0, 1.0), IMAGE)
    return folder


def change(path: Path, **values: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


ARRAYS: dict[str, dict[str, Any]] = {
    "a codec that is a function": {"codecs": [{"name": "os.system", "configuration": {"c": "x"}}]},
    "a codec that unpickles": {"codecs": [{"name": "numcodecs.pickle", "configuration": {}}]},
    "objects": {"data_type": "object"},
    "objects by name": {"data_type": {"name": "os.system", "configuration": {}}},
    "another type": {"data_type": "float64", "fill_value": 0.0},
    "a grid by name": {"chunk_grid": {"name": "os", "configuration": {}}},
    "a negative shape": {"shape": [-1, 2, 3]},
    "a shape of text": {"shape": "evil"},
    "no axes": {"shape": []},
    "a huge shape": {"shape": [5, 2**40, 2**40, 2**40]},
    "a huge shape and chunk": {
        "shape": [5, 2**40, 2**40, 2**40],
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [5] + 3 * [2**40]}},
    },
    "a fill value that is a dictionary": {"fill_value": {"py/reduce": "os.system"}},
    "a node by name": {"node_type": "os.system"},
    "another version": {"zarr_format": 4},
}


@pytest.mark.parametrize("name", ARRAYS)
@pytest.mark.parametrize("kind", ["codes", "volumes"])
def test_an_array_that_the_library_does_not_write_is_refused(
    kind: str, name: str, request: pytest.FixtureRequest
) -> None:
    folder: Path = request.getfixturevalue(kind)
    array = {"codes": "codes.zarr/level_0", "volumes": "volumes.zarr/volumes"}[kind]
    seal(folder)
    stores: dict[str, Callable[[Path], Any]] = {"codes": CodeStore, "volumes": VolumeStore}
    stores[kind](folder)
    change(folder / array / "zarr.json", **ARRAYS[name])
    seal(folder)
    with pytest.raises(IntegrityError, match="Make it again"):
        stores[kind](folder)


ATTRIBUTES: dict[str, dict[str, Any]] = {
    "none": {},
    "no maps": {"format_version": 2, "maps": []},
    "maps of text": {"format_version": 2, "maps": "evil"},
    "a map that leads outside": {
        "format_version": 2,
        "maps": [{"name": "../../volumes", "grid": [8, 9, 10], "num_embeddings": 300}],
    },
    "a map by its whole path": {
        "format_version": 2,
        "maps": [{"name": "/etc/passwd", "grid": [8, 9, 10], "num_embeddings": 300}],
    },
    "a map without a name": {"format_version": 2, "maps": [{"name": None, "grid": []}]},
    "the group itself": {
        "format_version": 2,
        "maps": [{"name": "", "grid": [8, 9, 10], "num_embeddings": 300}],
    },
    "a grid of other axes": {
        "format_version": 2,
        "maps": [{"name": "level_0", "grid": [8], "num_embeddings": 300}],
    },
}


@pytest.mark.parametrize("name", ATTRIBUTES)
def test_codes_whose_attributes_are_none_of_ours_are_refused(codes: Path, name: str) -> None:
    change(codes / "codes.zarr/zarr.json", attributes=ATTRIBUTES[name])
    seal(codes)
    with pytest.raises(IntegrityError, match="Make it again"):
        CodeStore(codes)


@pytest.mark.parametrize(
    "changes",
    [
        {"records": [{"__class__": "os.system"}]},
        {"records": "evil"},
        {"records": None},
        {"channels": [{"name": 1}]},
        {"channels": 7},
        {"spacing": "evil"},
        {"spacing": None},
        {"format_version": None},
    ],
    ids=str,
)
def test_volumes_whose_attributes_are_none_of_ours_are_refused(
    volumes: Path, changes: dict[str, Any]
) -> None:
    path = volumes / "volumes.zarr/zarr.json"
    attributes = json.loads(path.read_text())["attributes"] | changes
    change(path, attributes=attributes)
    seal(volumes)
    with pytest.raises(IntegrityError, match="Make it again"):
        VolumeStore(volumes)


@pytest.mark.parametrize("index", [-1, 2, 10**30, 0.5, "0"])
def test_a_volume_that_is_not_there_is_refused(volumes: Path, index: Any) -> None:
    path = volumes / "volumes.zarr/zarr.json"
    attributes = json.loads(path.read_text())["attributes"]
    attributes["records"][0]["index"] = index
    change(path, attributes=attributes)
    seal(volumes)
    with pytest.raises(IntegrityError, match="Make it again"):
        VolumeStore(volumes)


@pytest.mark.parametrize("field", ["filters", "compressor"])
def test_a_store_of_zarr_version_2_is_not_opened(tmp_path: Path, canary: Path, field: str) -> None:
    """Its codecs are numcodecs' by name, and one of these unpickles."""
    store = tmp_path / "old/codes.zarr"
    (store / "level_0").mkdir(parents=True)
    codec = {"id": "pickle", "protocol": 5}
    array = {
        "zarr_format": 2, "shape": [1, 1], "chunks": [1, 1], "dtype": "|u1", "fill_value": 0,
        "order": "C", "filters": None, "compressor": None,
    }  # fmt: skip
    array[field] = [codec] if field == "filters" else codec
    maps = [{"name": "level_0", "grid": [1], "num_embeddings": 6}]
    (store / ".zgroup").write_text('{"zarr_format": 2}')
    (store / ".zattrs").write_text(json.dumps({"format_version": 2, "maps": maps}))
    (store / "level_0/.zarray").write_text(json.dumps(array))
    (store / "level_0/0.0").write_bytes(pickled(canary))
    seal(store.parent)
    with pytest.raises(IntegrityError, match="No group found"):
        CodeStore(store.parent)
    assert not canary.exists()


# params.yaml


def bomb(levels: int, root: str = "[1, 1, 1, 1, 1, 1, 1, 1, 1]") -> str:
    """Nine to the power of `levels` + 1 values, in a line for each level."""
    lines = [f"a0: &a0 {root}"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, levels + 1)]
    return "\n".join(lines)


def merged(levels: int) -> str:
    lines = ["a0: &a0 {x: 1}"]
    lines += [f"a{n}: &a{n} {{<<: [{', '.join([f'*a{n - 1}'] * 9)}]}}" for n in range(1, levels)]
    return "\n".join(lines)


TEXTS: dict[str, str | bytes] = {
    "a call": "seed: !!python/object/apply:os.system ['touch canary']",
    "a call of a method": "seed: !!python/object/new:os.system ['touch canary']",
    "a module": "seed: !!python/module:os",
    "a name": "seed: !!python/name:os.system",
    "billion laughs": bomb(12) + "\nseed: *a12",
    "laughs at a number": bomb(4) + "\nseed: *a4",
    "laughs in merges": merged(12),
    "something in itself": "seed: &a [*a]",
    "a mapping in itself": "seed: &a {b: *a}",
    "depth": "seed: " + "[" * 50_000,
    "depth in a block": "".join(f"{' ' * n}a:\n" for n in range(2000)),
    "no text": b"seed: \xff\xfe",
    "NUL": "seed: \0",
    "a number of 5000 digits": f"seed: {'9' * 5000}",
    "a date that is none": "seed: 2001-99-99",
    "a long text": f"seed: {'x' * 1_000_000}",
    "a list of texts": "seed: [" + "x, " * 30_000 + "]",
    "a number": "7",
    "nothing": "",
}


@pytest.mark.parametrize("name", TEXTS)
def test_a_hostile_params_yaml_ends_at_once(name: str, place: Path, tmp_path: Path) -> None:
    text = TEXTS[name]
    Path("params.yaml").write_bytes(text if isinstance(text, bytes) else text.encode())
    before, start = tree(tmp_path), time.monotonic()
    refused(vqmri("ingest"), 2, "params.yaml")
    assert time.monotonic() - start < 20
    assert tree(tmp_path) == before
    assert not Path("canary").exists()


def test_anchors_of_a_sensible_size_are_read(tmp_path: Path) -> None:
    text = yaml.safe_dump(tiny_values())
    text = text.replace("learning_rate: 0.003", "learning_rate: &rate 0.003", 1)
    text = text.replace("learning_rate: 0.002", "learning_rate: *rate", 1)
    (tmp_path / "params.yaml").write_text(text)
    read = Params.load(tmp_path / "params.yaml")
    assert read.train_prior.learning_rate == read.train_vqvae.learning_rate == 0.003


VALUES: st.SearchStrategy[Any] = st.sampled_from(
    [None, [], {}, [None], [[]], {"a": {}}, float("inf"), float("nan"), -1, 0, 2**70, 1e300, "",
     "../../x", "\0", "x" * 300, True, [float("inf")], ["x"], {"kind": ["nifti"]}]
)  # fmt: skip


def leaves(values: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Where a value stands, sections and lists among them."""
    pairs = values.items() if isinstance(values, dict) else enumerate(values)
    found = []
    for key, value in pairs:
        found.append((*path, key))
        if isinstance(value, dict | list):
            found += leaves(value, (*path, key))
    return found


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(st.sampled_from(leaves(tiny_values())), VALUES), min_size=1, max_size=3))
def test_any_value_anywhere_in_params_is_read_or_named(
    tmp_path_factory: pytest.TempPathFactory, changes: list[tuple[tuple[Any, ...], Any]]
) -> None:
    values = tiny_values()
    for path, value in changes:
        inside: Any = values
        try:
            for key in path[:-1]:
                inside = inside[key]
            inside[path[-1]] = value
        except (KeyError, TypeError, IndexError):
            continue
    file = tmp_path_factory.getbasetemp() / "any.yaml"
    file.write_text(yaml.safe_dump(values))
    with suppress(ParamsError):
        Params.load(file)


def test_every_refusal_here_has_an_exit_code() -> None:
    assert {e.__name__: e.exit_code for e in (ParamsError, InputError, IntegrityError)} == {
        "ParamsError": 2, "InputError": 3, "IntegrityError": 7,
    }  # fmt: skip
    assert issubclass(IntegrityError, VqmriError)


def test_a_sealed_model_is_still_drawn_from(model: Path) -> None:
    assert generate("--count", "2").exit_code == 0
    publish(model / "again", started_vqvae(), VQVAE_ARGUMENTS, {})
