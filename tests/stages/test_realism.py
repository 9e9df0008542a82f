import nibabel as nib
import numpy as np
import pytest

from tests.conftest import run_stages, tiny_values
from vqmri.evaluation.features import Projection
from vqmri.layout import Layout
from vqmri.scans.volume import Record
from vqmri.stages.opened import open_outputs
from vqmri.stages.realism import (
    HELD,
    SAMPLES,
    TRAINING,
    _intervals,
    compare,
    halves,
    realism,
)

MEASURES = ("frechet", "mmd", "coverage")


def record(index: int) -> Record:
    return Record(index, f"sub-{index // 2}", f"{index}.nii", "", [], [], [], [], {}, None, "train")


@pytest.mark.parametrize("count", [0, 1, 2, 9, 10])
def test_both_scans_of_a_person_are_in_one_half(count: int) -> None:
    records = [record(index) for index in range(count)]
    first, second = halves(records, np.random.default_rng(0))
    assert sorted([*first, *second], key=lambda r: r.index) == records
    assert not {r.subject for r in first} & {r.subject for r in second}
    assert abs(len(first) - len(second)) <= 3


def test_samples_that_are_other_peoples_scans_have_ratios_of_1() -> None:
    """Measured along their own components, training scans would lie too far from other ones."""
    items, ratios = 24, []
    for seed in range(60):
        random = np.random.default_rng(seed)
        mix = random.standard_normal((50, 50)) * np.linspace(0.02, 1, 50)
        fitting, train, held, samples = (
            random.standard_normal((items, 50)) @ mix.T for _ in range(4)
        )
        project = Projection.fit(fitting)
        sets = {HELD: held, TRAINING: train, SAMPLES: samples}
        found = {"": {name: project(features) for name, features in sets.items()}}
        ratios.append(compare(found, items, seed)[SAMPLES]["frechet_ratio"])
    assert np.exp(np.mean(np.log(ratios))) == pytest.approx(1, abs=0.1)


def test_few_people_with_many_scans_each_have_a_wider_interval() -> None:
    people, widths = np.repeat(np.arange(8), 6), []
    for seed in range(4):
        random = np.random.default_rng(seed)
        samples = random.standard_normal((48, 4))
        train, held = (random.standard_normal((8, 4))[people] for _ in range(2))
        for scans in (train, held):
            scans += random.normal(0, 0.4, scans.shape)
        projected = {"": {SAMPLES: samples, TRAINING: train, HELD: held}}
        rows = compare(projected, 48, seed)
        for subjects in (people, None, np.arange(48)):
            found = _intervals(projected, rows, (None, subjects, subjects), seed)
            widths.append([found[f"{m}_ratio_high"] - found[f"{m}_ratio_low"] for m in MEASURES])
    grouped, single, alone = (np.array(widths[i::3]) for i in range(3))
    assert (grouped.mean(axis=0) > 1.2 * single.mean(axis=0)).all()
    np.testing.assert_array_equal(alone, single)  # one scan each: nothing changes


@pytest.fixture(scope="module")
def two_people(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    """Twelve scans of each; one is trained on, the other is held out."""
    root, random = tmp_path_factory.mktemp("two-people"), np.random.default_rng(0)
    for person in ("01", "02"):
        for session in range(10, 22):
            name = f"sub-{person}/ses-{session}/anat/sub-{person}_ses-{session}_T1w.nii.gz"
            (root / "raw" / name).parent.mkdir(parents=True)
            voxels = random.random((14, 22, 14)).astype(np.float32)
            nib.save(nib.Nifti1Image(voxels, np.diag([10.0, 10.0, 10.0, 1.0])), root / "raw" / name)
    values = tiny_values()
    values["ingest"] |= {"raw": "raw", "source": {"kind": "auto"}, "held_out": 0.5}
    values["train_prior"]["conditions"] = []
    values["sample"]["count"] = 12
    return run_stages(values | {"study": None, "use": None}, root)[0]


def test_scans_of_one_training_subject_give_no_axes_to_measure_along(
    two_people: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("volumes", "vqvae", "codes", "prior", "samples")
    opened = open_outputs({name: two_people.output(name) for name in names})
    assert len(opened.records("train")) == len(opened.records("held_out")) == 12
    assert realism(opened, None, seed=0).count == 0
    monkeypatch.setattr("vqmri.stages.realism.halves", lambda records, _: (records[:3], records))
    assert realism(opened, None, seed=0).count == 0
    report = (two_people.output("report") / "report.html").read_text()
    assert "training subjects or samples distances" in report
