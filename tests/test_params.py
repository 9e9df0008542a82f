from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.conftest import REPO, tiny_values
from vqmri.errors import ParamsError
from vqmri.params import Params

PRESETS = sorted((REPO / "vqmri/presets").glob("*.yaml"))


def load(values: Any, folder: Path) -> Params:
    path = folder / "params.yaml"
    path.write_text(yaml.safe_dump(values))
    return Params.load(path)


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_every_preset_is_valid(path: Path) -> None:
    assert Params.load(path).sample.count >= 8


def test_the_active_params_are_the_phantom_preset() -> None:
    assert Params.load(REPO / "params.yaml") == Params.load(REPO / "vqmri/presets/phantom.yaml")


def test_all_faults_are_named_at_once_with_path_value_and_what_is_allowed(tmp_path: Path) -> None:
    values = tiny_values()
    values["sample"]["temperature"] = -1.0
    values["train_vqvae"]["quantizer"]["decay"] = 2
    values["train_prior"]["dropuot"] = 0.1
    del values["encode"]["items_per_shard"]
    values["ingest"]["source"]["kind"] = "floppy"
    values["ingest"]["shape"] = [16, 22, 16]
    with pytest.raises(ParamsError) as caught:
        load(values, tmp_path)
    text = str(caught.value)
    assert "6 faults" in text
    assert "ingest.shape = [16, 22, 16]: every axis must be a multiple of 4" in text
    assert "sample.temperature = -1.0: Input should be greater than 0" in text
    assert "train_vqvae.quantizer.decay = 2: Input should be less than 1" in text
    assert "train_prior.dropuot = 0.1: no such parameter; did you mean dropout?" in text
    assert "encode.items_per_shard: this parameter is missing (volumes encoded and" in text
    assert "'phantom'" in text
    assert "'nifti'" in text
    assert caught.value.exit_code == 2


def test_a_name_is_compared_with_those_of_its_own_section(tmp_path: Path) -> None:
    values = tiny_values()
    values["train_vqvae"]["quantizer"]["decays"] = 0.9
    values["ingest"]["source"]["cuont"] = 3
    values["use"]["xyz"] = 1
    with pytest.raises(ParamsError) as caught:
        load(values, tmp_path)
    text = str(caught.value)
    assert "train_vqvae.quantizer.decays = 0.9: no such parameter; did you mean decay?" in text
    assert "ingest.source.cuont = 3: no such parameter; did you mean count?" in text
    assert "use.xyz = 1: no such parameter; there are steps" in text


@pytest.mark.parametrize(
    ("section", "changes", "expected"),
    [
        ("ingest", {"shape": [16, 22, 16]}, "multiple of 4"),
        ("ingest", {"percentiles": [99.0, 1.0]}, "ingest.percentiles = [99.0, 1.0]: the first"),
        ("train_vqvae", {"patch": [8, 8, 6]}, "it needs 3 multiples of 4"),
        ("train_vqvae", {"patch": [4, 16, 16]}, "or less and then 8 at least"),
        ("train_vqvae", {"channels": [8]}, "with 1 channels downsampling is among [2]"),
        ("train_vqvae", {"learning_rate": float("inf")}, "finite number"),
        ("sample", {"seed": 2**70}, "sample.seed"),
        ("train_vqvae", {"channels": [12, 16]}, "train_vqvae.channels.0 = 12"),
        (
            "train_vqvae",
            {"levels": [{"downsampling": 4, "num_embeddings": 8}] * 2},
            "must rise, finest level first",
        ),
        (
            "train_vqvae",
            {"levels": [{"downsampling": 4, "num_embeddings": 100000}]},
            "train_vqvae.levels.0.num_embeddings = 100000",
        ),
    ],
)
def test_what_does_not_fit_together_is_refused(
    tmp_path: Path, section: str, changes: dict[str, Any], expected: str
) -> None:
    values = tiny_values()
    values[section] |= changes
    with pytest.raises(ParamsError) as caught:
        load(values, tmp_path)
    assert expected in str(caught.value)


def test_the_path_of_a_sources_fault_is_that_of_the_file(tmp_path: Path) -> None:
    values = tiny_values()
    values["ingest"]["source"]["count"] = 1
    with pytest.raises(ParamsError, match=r"ingest\.source\.count = 1"):
        load(values, tmp_path)


IDX = {
    "kind": "idx",
    "train_images": "a",
    "train_labels": "b",
    "test_images": "c",
    "test_labels": "d",
    "covariate": "digit",
}
IMAGES = {"kind": "images", "images": "*/*.png", "channels": 3, "covariate": "class"}
NIFTI = {"kind": "nifti", "images": "*.nii", "labels": "labels/*.nii"}
FLAT = {"spacing": None, "percentiles": None, "shape": [16, 24]}


def with_source(source: dict[str, Any], **changes: Any) -> dict[str, Any]:
    values = tiny_values()
    values["ingest"] |= {"source": source, **changes}
    values["train_prior"]["conditions"] = []
    return values


def test_sources_of_pictures(tmp_path: Path) -> None:
    idx = load(with_source(IDX, **FLAT, held_out=None), tmp_path)
    assert idx.ingest.shape == (16, 24)
    assert load(with_source(IMAGES, **FLAT), tmp_path).ingest.held_out == 0.2
    tested = with_source(IMAGES | {"test_images": "test/*.png"}, **FLAT, held_out=None)
    assert load(tested, tmp_path).ingest.held_out is None


def test_channels_of_a_scan(tmp_path: Path) -> None:
    source = NIFTI | {"modalities": {"T2w": "*_T2w.nii"}, "label_values": [0, 2, 1]}
    assert load(with_source(source), tmp_path).ingest.source.kind == "nifti"


@pytest.mark.parametrize(
    ("source", "changes", "expected"),
    [
        (IDX, FLAT, "ingest.held_out = 0.2: this source has a test part of its own"),
        (IMAGES | {"test_images": "t/*"}, FLAT, "ingest.held_out = 0.2: this source has a test"),
        (IMAGES, FLAT | {"held_out": None}, "ingest.held_out = None: this source has no test"),
        (NIFTI, {"held_out": None}, "ingest.held_out = None: this source has no test part"),
        (IMAGES, FLAT | {"spacing": [1.0] * 3}, "ingest.spacing = [1.0, 1.0, 1.0]: pictures"),
        (IMAGES, FLAT | {"percentiles": [1.0, 99.0]}, "ingest.percentiles = [1.0, 99.0]: pict"),
        (NIFTI, {"spacing": None}, "ingest.spacing = None: a source of kind nifti needs it"),
        (NIFTI, {"percentiles": None}, "ingest.percentiles = None: a source of kind nifti needs"),
        (NIFTI, {"shape": [16, 24]}, "ingest.shape = [16, 24]: a source of kind nifti has 3 axes"),
        (IMAGES, FLAT | {"shape": [16] * 3}, "a source of kind images has 2 axes"),
        (IMAGES | {"channels": 2}, FLAT, "ingest.source.channels = 2: Input should be 1 or 3"),
        (IMAGES | {"images": "/a"}, FLAT, "ingest.source.images = '/a'"),
        (
            IMAGES | {"test_images": "a/b**"},
            FLAT | {"held_out": None},
            "'a/b**': it must name files",
        ),
        (NIFTI | {"images": "**.nii.gz"}, {}, "images = '**.nii.gz': it must name files, and '**'"),
        (NIFTI | {"masks": "."}, {}, "ingest.source.masks = '.': it must name files"),
        (NIFTI | {"labels": None, "label_values": [0, 1]}, {}, "add `labels` or remove it"),
        (NIFTI | {"label_values": [1, 0]}, {}, "ingest.source.label_values = [1, 0]: 0, the back"),
        (NIFTI | {"label_values": [0, 1, 1]}, {}, "none twice"),
        (NIFTI | {"label_values": [0]}, {}, "at least two"),
        (NIFTI | {"label_values": [0, 2**31]}, {}, "ingest.source.label_values.1 = 2147483648"),
        (NIFTI | {"modalities": {"dseg": "*"}}, {}, "'dseg' is the name of another channel"),
        (NIFTI | {"modalities": {"T2-w": "*"}}, {}, "ingest.source.modalities.T2-w"),
    ],
)
def test_what_does_not_fit_a_source_is_refused(
    tmp_path: Path, source: dict[str, Any], changes: dict[str, Any], expected: str
) -> None:
    with pytest.raises(ParamsError) as caught:
        load(with_source(source, **changes), tmp_path)
    assert expected in str(caught.value)
    assert "1 fault," in str(caught.value)


def test_missing_file_and_broken_yaml(tmp_path: Path) -> None:
    with pytest.raises(ParamsError, match="vqmri init"):
        Params.load(tmp_path / "params.yaml")
    (tmp_path / "params.yaml").write_text("a: [1,")
    with pytest.raises(ParamsError, match="not YAML"):
        Params.load(tmp_path / "params.yaml")


@pytest.mark.parametrize("text", ["{sex: yes}", "{sex: [F, on]}"])
def test_a_covariate_is_no_switch(tmp_path: Path, text: str) -> None:
    values = tiny_values()
    values["sample"]["covariates"] = yaml.safe_load(text)
    words = r"1 fault,(?s:.*)sample\.covariates\.sex = .*: YAML reads yes, .* write 'yes' in quotes"
    with pytest.raises(ParamsError, match=words):
        load(values, tmp_path)
    values["sample"]["covariates"] = {"sex": ["yes", 1, 0.5]}
    assert load(values, tmp_path).sample.covariates == {"sex": ["yes", 1, 0.5]}
    values["encode"]["variations"] = {
        "copies": 1,
        "augment": {"rotation": 0, "scaling": 0, "translation": 0, "contrast": 0, "flips": [0]},
        "swaps": {"operated": [False, "no"]},
    }
    with pytest.raises(ParamsError, match=r"encode\.variations\.swaps\.operated\.0 = False: YAML"):
        load(values, tmp_path)


def test_a_key_that_stands_twice_is_named_with_its_line(tmp_path: Path) -> None:
    text = yaml.safe_dump(tiny_values())
    seeds = [n for n, line in enumerate(text.splitlines(), start=1) if line == "  seed: 0"]
    lines = text.splitlines()
    lines.insert(seeds[0], "  seed: 1")
    (tmp_path / "params.yaml").write_text("\n".join(lines))
    words = rf"(?s)params\.yaml.*'seed' stands twice.*line {seeds[0] + 1}.*Mend that line"
    with pytest.raises(ParamsError, match=words):
        Params.load(tmp_path / "params.yaml")


def every_field(schema: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    found = list(schema.get("properties", {}).items())
    for name, definition in schema.get("$defs", {}).items():
        found += [(f"{name}.{f}", v) for f, v in definition.get("properties", {}).items()]
    return found


def test_every_field_has_a_description() -> None:
    for name, field in every_field(Params.model_json_schema()):
        nested = "$ref" in field or "discriminator" in field or "const" in field
        assert nested or field.get("description"), name


@pytest.mark.parametrize("path", PRESETS, ids=lambda path: path.stem)
def test_every_preset_has_what_dvc_asks_for(path: Path) -> None:
    """DVC refuses a stage whose params are not in the file, even if they have a default."""
    values = yaml.safe_load(path.read_text())
    stages = yaml.safe_load((REPO / "dvc.yaml").read_text())["stages"]
    for name, stage in stages.items():
        assert set(stage["params"]) <= set(values), name


STILL = {"rotation": 0.0, "scaling": 0.0, "translation": 0.0, "contrast": 0.0, "flips": []}


def varied(preset: str, path: str, augment: dict[str, Any]) -> dict[str, Any]:
    values = yaml.safe_load((REPO / f"vqmri/presets/{preset}.yaml").read_text())
    if path == "encode.variations.augment":
        values["encode"]["variations"] = {"copies": 2, "augment": augment}
    else:
        values["train_vqvae"]["augment"] = augment
    return dict(values)


@pytest.mark.parametrize("path", ["train_vqvae.augment", "encode.variations.augment"])
def test_pictures_have_no_third_axis_to_mirror(tmp_path: Path, path: str) -> None:
    load(varied("mnist", path, STILL | {"flips": [1]}), tmp_path)
    said = rf"{path}.flips = \[1, 2\]: axes 0 to 1 can be mirrored"
    with pytest.raises(ParamsError, match=said):
        load(varied("mnist", path, STILL | {"flips": [1, 2]}), tmp_path)


@pytest.mark.parametrize("path", ["train_vqvae.augment", "encode.variations.augment"])
def test_voxels_that_are_no_cubes_are_not_turned(tmp_path: Path, path: str) -> None:
    values = varied("brain-1mm", path, STILL | {"rotation": 6.0})
    load(values, tmp_path)
    values["ingest"]["spacing"] = [1.0, 1.0, 5.0]
    with pytest.raises(ParamsError, match=rf"{path}.rotation = 6.0: .*are no cubes"):
        load(values, tmp_path)
    values = varied("brain-1mm", path, STILL)
    values["train_vqvae"]["augment"] = STILL
    values["ingest"]["spacing"] = [1.0, 1.0, 5.0]
    load(values, tmp_path)


def test_what_mirroring_exchanges_is_a_covariate(tmp_path: Path) -> None:
    values = varied("phantom", "encode.variations.augment", STILL | {"flips": [0]})
    values["encode"]["variations"]["swaps"] = {"sex": ["F", "M"]}
    load(values, tmp_path)
    values["encode"]["variations"]["swaps"] = {"sides": ["left", "right"]}
    with pytest.raises(ParamsError, match=r"swaps\.sides: 'sides' is no covariate"):
        load(values, tmp_path)
