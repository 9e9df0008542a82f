import csv
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from tests.conftest import tiny_values
from vqmri.errors import InputError
from vqmri.layout import Layout
from vqmri.params import Params
from vqmri.scans.store import VolumeStore
from vqmri.stages.ingest import ingest


def write(path: Path, data: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image: Any = nib.Nifti1Image(data.astype(np.float32), np.diag([10.0, 10.0, 10.0, 1.0]))
    nib.save(image, path)


def project(root: Path, good: int, people: int = 100) -> Layout:
    """`good` scans of `people` people, and among them one of each of some kinds of bad ones."""
    random = np.random.default_rng(0)
    raw = root / "raw"
    rows = []
    for number in range(good):
        write(raw / f"scan{number:02d}.nii.gz", random.random((14, 26, 16)))
        rows.append((f"scan{number:02d}.nii.gz", f"p{number % people}", "n/a" if number else "61"))
    write(raw / "scan99four.nii.gz", random.random((4, 4, 4, 3)))
    write(raw / "scan99flat.nii.gz", np.ones((8, 8, 8)))
    write(raw / "scan99nan.nii.gz", np.full((8, 8, 8), np.nan))
    (raw / "scan99text.nii.gz").write_text("not an image")
    (raw / "scan99link.nii.gz").symlink_to("nowhere.nii.gz")
    (raw / "scan99folder.nii.gz").mkdir()
    huge = random.choice([-3.2e38, 3.2e38, 0.0], (8, 8, 8))
    write(raw / "scan99huge.nii.gz", huge)
    write(raw / "mask00.nii.gz", np.ones((14, 26, 16)))  # not of the glob
    for kind in ("four", "flat", "nan", "text", "link", "folder", "huge"):
        rows.append((f"scan99{kind}.nii.gz", f"bad-{kind}", "5"))  # noqa: PERF401
    with (raw / "people.tsv").open("w") as file:
        csv.writer(file, delimiter="\t").writerows([("file", "who", "age"), *rows])
    return Layout(root)


def params() -> Params:
    values = tiny_values()
    values["ingest"]["raw"] = "raw"
    values["ingest"]["source"] = {
        "kind": "nifti",
        "images": "scan*.nii.gz",
        "table": "people.tsv",
        "subject_column": "who",
        "covariates": ["age"],
    }
    return Params.model_validate(values)


def test_bad_scans_become_rows_and_nothing_else_is_lost(tmp_path: Path) -> None:
    data = project(tmp_path, good=10, people=5)
    metrics = ingest(params(), data)
    assert metrics["volumes"] == 10
    assert metrics["rejected"] == 7
    with (data.output("volumes") / "rejections.tsv").open() as file:
        rows = {row["source"]: row["code"] for row in csv.DictReader(file, delimiter="\t")}
    assert rows == {
        "scan99four.nii.gz": "not-3d",
        "scan99flat.nii.gz": "constant",
        "scan99nan.nii.gz": "not-finite",
        "scan99text.nii.gz": "unreadable",
        "scan99link.nii.gz": "unreadable",
        "scan99folder.nii.gz": "unreadable",
        "scan99huge.nii.gz": "not-finite",
    }
    store = VolumeStore(data.output("volumes"))
    assert [record.source for record in store.records] == [f"scan{i:02d}.nii.gz" for i in range(10)]
    assert store.records[0].covariates == {"age": 61.0}
    assert store.records[1].covariates == {"age": None}
    volumes = store.read(store.records)
    assert volumes.shape == (10, 1, 16, 24, 16)
    assert volumes.min() == 0
    assert volumes.max() == 1


def test_field_of_view_is_what_the_scan_covers(tmp_path: Path) -> None:
    data = project(tmp_path, good=4)
    ingest(params(), data)
    store = VolumeStore(data.output("volumes"))
    record = store.records[0]
    assert record.box == ((1, 15), (0, 24), (0, 16))  # 14 padded to 16, 26 cropped to 24
    volume = store.read([record])[0, 0]
    assert volume[0].max() == 0
    assert volume[15].max() == 0
    assert volume[1].max() > 0


def test_no_person_is_on_both_sides(tmp_path: Path) -> None:
    data = project(tmp_path, good=12, people=4)
    ingest(params(), data)
    store = VolumeStore(data.output("volumes"))
    train = {record.subject for record in store.of_split("train")}
    held = {record.subject for record in store.of_split("held_out")}
    assert train
    assert held
    assert not train & held
    assert len(store.of_split("train")) + len(store.of_split("held_out")) == 12


def test_all_rejected_says_why_and_publishes_nothing(tmp_path: Path) -> None:
    data = project(tmp_path, good=0)
    with pytest.raises(InputError) as caught:
        ingest(params(), data)
    assert caught.value.exit_code == 3
    for code in ("not-3d", "constant", "not-finite", "unreadable"):
        assert code in str(caught.value)
    assert not data.output("volumes").exists()


def test_nothing_found(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    with pytest.raises(InputError, match=r"scan\*\.nii\.gz"):
        ingest(params(), Layout(tmp_path))


def test_without_a_table_sessions_of_a_person_are_that_persons(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for person, session in ((1, 1), (1, 2), (2, 1), (3, 1)):
        name = f"raw/sub-{person}/ses-{session}/anat/sub-{person}_ses-{session}_T1w.nii.gz"
        write(tmp_path / name, random.random((14, 26, 16)))
    values = tiny_values()
    values["ingest"] |= {"raw": "raw", "source": {"kind": "nifti", "images": "**/*_T1w.nii.gz"}}
    ingest(Params.model_validate(values), Layout(tmp_path))
    store = VolumeStore(Layout(tmp_path).output("volumes"))
    assert [record.subject for record in store.records] == ["1", "1", "2", "3"]


def test_names_that_come_twice_cannot_be_told_apart_by_a_table(tmp_path: Path) -> None:
    data = project(tmp_path, good=2)
    write(tmp_path / "raw/more/scan00.nii.gz", np.random.default_rng(0).random((4, 4, 4)))
    values = params().model_dump()
    values["ingest"]["source"]["images"] = "**/scan*.nii.gz"
    with pytest.raises(InputError, match=r"scan00\.nii\.gz"):
        ingest(Params.model_validate(values), data)
