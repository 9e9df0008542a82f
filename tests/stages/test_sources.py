"""What a user asks of ingest beside the kind of the source: that it finds out, hides, prepares."""

import csv
import shutil
import sys
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import yaml
from pydantic import ValidationError

from tests.conftest import tiny_values
from tests.stages.test_dicom import export
from tests.stages.test_reconstruct import raw_phantom, write
from vqmri.errors import InputError, ParamsError
from vqmri.layout import Layout
from vqmri.outputs import Manifest
from vqmri.params import Params
from vqmri.scans.store import VolumeStore
from vqmri.stages.ingest import ingest
from vqmri.stages.run import run
from vqmri.tracking.tracker import NullTracker


def params(**changes: Any) -> Params:
    values = tiny_values()
    del values["ingest"]["source"]
    values["ingest"] |= {"raw": "raw", "held_out": 0.3, **changes}
    return Params.model_validate(values)


NIFTI = {"kind": "nifti", "images": "**/*.nii.gz"}


def scans(root: Path, names: list[str]) -> Layout:
    for number, name in enumerate(names):
        write(root / "raw" / name, *raw_phantom(number))
    return Layout(root)


def records(data: Layout) -> list[Any]:
    return VolumeStore(data.output("volumes")).records


def test_a_folder_of_images_is_found_to_be_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = scans(tmp_path, [f"any/where{n}/x{n}.nii.gz" for n in range(4)])
    assert ingest(params(), data)["volumes"] == 4
    assert "raw is taken as source kind nifti" in capsys.readouterr().err
    first = Manifest.read(data.output("volumes"))
    assert first.provenance["params"]["ingest"]["source"]["kind"] == "nifti"
    ingest(params(source={"kind": "nifti", "images": "**/*"}), data)  # told, it is the same
    assert Manifest.read(data.output("volumes")).fingerprint == first.fingerprint


def test_a_bids_data_set_is_found_to_be_one(tmp_path: Path) -> None:
    names = [f"sub-0{n}/anat/sub-0{n}_T1w.nii.gz" for n in range(1, 5)]
    data = scans(tmp_path, [*names, "derivatives/x/sub-01/anat/sub-01_T1w.nii.gz"])
    assert ingest(params(), data)["volumes"] == 4
    assert [record.subject for record in records(data)] == ["01", "02", "03", "04"]


def test_an_export_of_dicom_is_found_to_be_one(tmp_path: Path) -> None:
    export(tmp_path / "raw", 4)
    metrics = ingest(params(), Layout(tmp_path))
    assert (metrics["volumes"], metrics["rejected"]) == (4, 1)


def test_a_folder_of_both_must_be_told(tmp_path: Path) -> None:
    export(tmp_path / "raw/dicom", 3)
    data = scans(tmp_path, ["a.nii.gz"])
    with pytest.raises(InputError, match=r"ingest\.source\.kind"):
        ingest(params(), data)
    assert ingest(params(source={"kind": "dicom"}), data)["volumes"] == 3


def everything(folder: Path) -> bytes:
    return b"".join(
        path.relative_to(folder).as_posix().encode() + path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    )


def test_a_key_hides_names_in_all_that_is_published(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = [f"{who}/sub-{who}_T1w.nii.gz" for who in ("Smith", "Jones", "Miller", "Brown")]
    data = scans(tmp_path, names)
    (tmp_path / "raw/Davis").mkdir()
    (tmp_path / "raw/Davis/sub-Davis_T1w.nii.gz").write_bytes(b"damaged")
    shutil.copy(tmp_path / "raw" / names[0], tmp_path / "raw/Smith/sub-Smith_T2w.nii.gz")
    plain = params(source=NIFTI)
    ingest(plain, data)
    assert b"Smith" in everything(data.output("volumes"))
    capsys.readouterr()
    (tmp_path / "key").write_text("a-secret-of-ours\n")
    metrics = ingest(params(source=NIFTI, subject_key="key"), data)
    assert (metrics["volumes"], metrics["rejected"]) == (5, 1)
    published = everything(data.output("volumes"))
    for word in ("Smith", "Jones", "Miller", "Brown", "Davis", "a-secret-of-ours"):
        assert word.encode() not in published
    people = [record.subject for record in records(data)]
    assert len(set(people)) == 4
    assert all(len(person) == 16 and person.isalnum() for person in people)
    with (data.work / "names.tsv").open(newline="") as file:
        which = {row["name"]: row["source"] for row in csv.DictReader(file, delimiter="\t")}
    assert sorted(which.values()) == sorted(
        [*names, "Smith/sub-Smith_T2w.nii.gz", "Davis/sub-Davis_T1w.nii.gz"]
    )
    assert {record.source for record in records(data)} <= set(which)
    assert "names.tsv" in capsys.readouterr().err
    (tmp_path / "key").write_text("another")
    ingest(params(source=NIFTI, subject_key="key"), data)
    assert set(people).isdisjoint(record.subject for record in records(data))


def test_with_a_key_mlflow_is_told_nothing_that_names_anybody(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = Told()
    monkeypatch.setattr("vqmri.tracking.mlflow.tracked", lambda *_: nullcontext(told))
    scans(tmp_path, [f"Smith/sub-Smith{n}_T1w.nii.gz" for n in range(4)])
    (tmp_path / "key").write_text("a-secret-of-ours")
    values = params(source={**NIFTI, "images": "Smith/*.nii.gz"}, subject_key="key")
    written = values.model_dump(mode="json")
    written["train_prior"]["conditions"] = []
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(written))
    run("ingest", tmp_path)
    assert told.values["seed"] == values.seed
    assert told.values["ingest"]["source"]["kind"] == "nifti"
    assert told.values["ingest"]["shape"] == [16, 24, 16]
    assert "Smith" not in str(told.values)
    assert not {"raw", "subject_key"} & told.values["ingest"].keys()


class Told(NullTracker):
    """Keeps what MLflow would be told of the params."""

    def params(self, values: Mapping[str, Any]) -> None:
        self.values = dict(values)


def test_masks_lie_beside_the_scans(tmp_path: Path) -> None:
    data = scans(tmp_path, [f"{n}_SS.nii.gz" for n in range(6)])
    for number in range(6):
        voxels, affine = raw_phantom(number)
        brain = (voxels > np.percentile(voxels, 70)).astype(np.uint8)
        if number == 4:
            affine = affine @ np.diag([1, 1, 2, 1])
        if number < 5:
            write(tmp_path / f"raw/{number}_mask.nii.gz", brain, affine)
    source = {"kind": "nifti", "images": "*_SS.nii.gz", "masks": "*_mask.nii.gz"}
    metrics = ingest(params(source=source, skull_strip=True), data)
    assert (metrics["volumes"], metrics["rejected"]) == (4, 2)
    with (data.output("volumes") / "rejections.tsv").open(newline="") as file:
        codes = {row["source"]: row["code"] for row in csv.DictReader(file, delimiter="\t")}
    assert codes == {"4_SS.nii.gz": "mask-mismatch", "5_SS.nii.gz": "mask-missing"}
    store = VolumeStore(data.output("volumes"))
    assert (store.read(store.records) == 0).mean() > 0.6
    assert [step["step"] for step in store.records[0].steps] == [
        "mask", "orient", "resample", "scale", "strip", "crop",
    ]  # fmt: skip


def test_a_command_of_the_users_takes_the_face_off_and_n4_the_field(tmp_path: Path) -> None:
    data = scans(tmp_path, [f"{n}.nii.gz" for n in range(4)])
    tool = tmp_path / "tool.py"
    tool.write_text(
        "import sys, nibabel as nib\n"
        "image = nib.load(sys.argv[1])\n"
        "data = image.get_fdata(); data[:, data.shape[1] // 2:] = 0\n"
        "nib.save(nib.Nifti1Image(data, image.affine), sys.argv[2])\n"
    )
    command = [sys.executable, str(tool), "{scan}", "{out}"]
    ingest(params(source=NIFTI), data)
    store = VolumeStore(data.output("volumes"))
    half = store.shape[2] // 2 + 1
    assert store.read(store.records)[:, :, :, half:].max() > 0
    ingest(params(source=NIFTI, deface=command, bias_correction=True), data)
    store = VolumeStore(data.output("volumes"))
    assert store.read(store.records)[:, :, :, half:].max() == 0
    assert [step["step"] for step in store.records[0].steps][:2] == ["deface", "bias"]
    image: Any = nib.load(tmp_path / "raw/0.nii.gz")
    assert np.asarray(image.dataobj)[:, -3].max() > 0  # the raw scans stay as they are


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"skull_strip": True}, "there is no brain mask"),
        ({"deface": ["tool", "{scan}", "out.nii.gz"]}, "{out}, a file in .nii.gz, must stand"),
        ({"brain_mask": ["{scan}", "x", "{out}"]}, "{scan}, a file in .nii.gz, must stand"),
        (
            {"source": {**NIFTI, "masks": "*"}, "brain_mask": ["x", "{scan}", "{out}"]},
            "both give a mask",
        ),
    ],
)
def test_what_cannot_be_is_said(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError) as caught:
        params(**changes)
    assert message in str(caught.value)


def test_a_missing_key_is_an_error(tmp_path: Path) -> None:
    data = scans(tmp_path, ["a.nii.gz"])
    with pytest.raises(ParamsError, match=r"ingest\.subject_key: .* missing or empty"):
        ingest(params(source=NIFTI, subject_key="key"), data)
