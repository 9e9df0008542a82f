"""A BIDS data set through the stage ingest."""

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import yaml

from tests.conftest import tiny_values
from vqmri.build.ingest import find, inputs
from vqmri.errors import InputError, ParamsError
from vqmri.layout import Layout
from vqmri.outputs.digests import FileDigests
from vqmri.params import Params
from vqmri.scans.store import VolumeStore
from vqmri.stages.ingest import ingest

TABLE = "participant_id\tage\tsex\nsub-01\t20\tF\nsub-02\t30\tn/a\nsub-03\t40\tM\nsub-09\t50\tM\n"


@pytest.fixture
def project(tmp_path: Path) -> Layout:
    """Three listed people and one who is not, two sessions each; one image is no image."""
    raw, random = tmp_path / "raw", np.random.default_rng(0)
    for person in range(1, 5):
        for session in ("a", "b"):
            name = f"sub-0{person}/ses-{session}/anat/sub-0{person}_ses-{session}_T1w.nii.gz"
            (raw / name).parent.mkdir(parents=True)
            voxels = random.random((14, 26, 16)).astype(np.float32)
            image: Any = nib.Nifti1Image(voxels, np.diag([10.0, 10.0, 10.0, 1.0]))
            nib.save(image, raw / name)
    (raw / "sub-01/ses-b/anat/sub-01_ses-b_T1w.nii.gz").write_text("not an image")
    (raw / "sub-02/sub-02_sessions.tsv").write_text("session_id\tage\nses-a\t30\nses-b\t31\n")
    (raw / "participants.tsv").write_text(TABLE)
    return Layout(tmp_path)


def values(**source: Any) -> dict[str, Any]:
    values = tiny_values()
    values["ingest"] |= {"raw": "raw", "held_out": 0.3}
    values["ingest"]["source"] = {"kind": "bids", **source}
    return values


def params(**source: Any) -> Params:
    return Params.model_validate(values(**source))


def test_an_image_whose_name_is_no_bids_becomes_a_row(project: Layout) -> None:
    raw = project.root / "raw"
    strange = raw / "sub-NYU-04/anat/sub-NYU-04_T1w.nii.gz"
    strange.parent.mkdir(parents=True)
    strange.write_bytes((raw / "sub-02/ses-a/anat/sub-02_ses-a_T1w.nii.gz").read_bytes())
    metrics = ingest(params(covariates=["age"]), project)
    assert (metrics["volumes"], metrics["rejected"]) == (7, 2)
    rows = (project.output("volumes") / "rejections.tsv").read_text().splitlines()
    assert rows[2].startswith("sub-NYU-04/anat/sub-NYU-04_T1w.nii.gz\tnot-bids-named\t")


def test_sessions_become_volumes_and_stay_on_one_side(project: Layout) -> None:
    metrics = ingest(params(covariates=["age", "sex"]), project)
    assert (metrics["volumes"], metrics["rejected"]) == (7, 1)
    folder = project.output("volumes")
    rows = (folder / "rejections.tsv").read_text().splitlines()
    assert rows[1].startswith("sub-01/ses-b/anat/sub-01_ses-b_T1w.nii.gz\tunreadable\t")
    store = VolumeStore(folder)
    assert [(r.subject, *r.covariates.values()) for r in store.records] == [
        ("01", 20.0, "F"),
        ("02", 30.0, None),
        ("02", 31.0, None),
        ("03", 40.0, "M"),
        ("03", 40.0, "M"),
        ("04", None, None),
        ("04", None, None),
    ]
    train = {record.subject for record in store.of_split("train")}
    held = {record.subject for record in store.of_split("held_out")}
    assert train
    assert held
    assert not train & held


def test_one_session_alone(project: Layout) -> None:
    assert ingest(params(session=["a"]), project)["volumes"] == 4


def test_an_output_depends_on_the_tables_that_are_asked(project: Layout) -> None:
    def of(**source: Any) -> dict[str, str]:
        settings = params(**source).ingest
        with FileDigests(project.work / "digests.sqlite") as digests:
            return inputs(settings, find(settings, 0, project.root), project.root, digests)

    images = {
        f"sub-0{n}/ses-{s}/anat/sub-0{n}_ses-{s}_T1w.nii.gz" for n in range(1, 5) for s in "ab"
    }
    assert set(of()) == images
    first = of(covariates=["age"])
    assert set(first) == images | {"tables"}
    table = project.root / "raw/participants.tsv"
    table.write_text(TABLE.replace("40", "41"))
    second = of(covariates=["age"])
    assert {name for name in first if first[name] != second[name]} == {"tables"}


def test_a_column_that_is_empty_for_all_is_an_error(project: Layout) -> None:
    (project.root / "raw/participants.tsv").write_text("participant_id\tsex\nsub-8\tF\n")
    with pytest.raises(InputError, match=r"source\.covariates: 'sex' is empty for all 7 scans"):
        ingest(params(covariates=["sex"]), project)


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ({"session": []}, r"ingest\.source\.session"),
        ({"session": ["ses-a"]}, r"ingest\.source\.session\.0 = 'ses-a'"),
        ({"session": [1]}, r"ingest\.source\.session\.0 = 1"),
        ({"suffix": "_T1w"}, r"ingest\.source\.suffix = '_T1w'"),
        ({"table": "x.tsv"}, r"ingest\.source\.table = 'x.tsv': no such parameter"),
    ],
)
def test_faulty_options_are_named(tmp_path: Path, source: dict[str, Any], fault: str) -> None:
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(values(**source)))
    with pytest.raises(ParamsError, match=fault):
        Params.load(tmp_path / "params.yaml")


def test_conditions_are_covariates_of_the_source(tmp_path: Path) -> None:
    asked = values(covariates=["age"])
    asked["train_prior"]["conditions"] = ["age", "sex"]
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(asked))
    with pytest.raises(ParamsError, match=r"conditions: 'sex' is no covariate .* \['age'\]"):
        Params.load(tmp_path / "params.yaml")
