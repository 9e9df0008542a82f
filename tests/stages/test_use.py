"""Nets that learn from samples, on tiny projects with classes, numbers and label maps."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.conftest import run_stages, tiny_values
from tests.stages.test_labels import LABELS, write_scans
from vqmri.codes import CodeStore
from vqmri.errors import IntegrityError
from vqmri.evaluation.accuracy import train_recogniser
from vqmri.layout import Layout
from vqmri.outputs import verify
from vqmri.params import Params
from vqmri.stages import report_samples, use_net
from vqmri.stages.report_samples import _pictures
from vqmri.stages.sample import sample
from vqmri.stages.train_prior import train_prior
from vqmri.stages.use import PREDICTIONS, TABLE, use
from vqmri.stages.use_figures import of_classes, of_labels, of_values
from vqmri.stages.use_net import SOURCES, Scans, plane

BOTH_ASKED = {"sex": ["F", "M"], "age": [30, 50, 70]}


def asked(tiny: Params, covariates: dict[str, Any], data: Layout) -> Params:
    """Samples of some covariates, in place of those of the finished project."""
    changed = tiny.sample.model_copy(update={"covariates": covariates, "count": 6})
    params = tiny.model_copy(update={"sample": changed})
    sample(params, data)
    return params


def table(data: Layout) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((data.output("use") / TABLE).read_text())
    return found


def test_classes_and_numbers_are_learnt_from_real_synthetic_and_both(
    copy_of_finished: Layout, tiny: Params
) -> None:
    params = asked(tiny, BOTH_ASKED, copy_of_finished)
    metrics = use(params, copy_of_finished)
    rows = {row["name"]: row for row in table(copy_of_finished)}
    assert {name: row["kind"] for name, row in rows.items()} == {
        "age": "continuous", "sex": "categorical",
    }  # fmt: skip
    for row in rows.values():
        assert (row["real"], row["synthetic"], row["held_out"], row["steps"]) == (16, 6, 4, 2)
        assert {*SOURCES, "real_low", "synthetic_high", "chance"} <= row["figures"].keys()
    assert 0 <= metrics["use_sex_obeyed"] <= 1
    assert metrics["use_age_chance_mae"] > 0
    assert metrics == {
        f"use_{name}_{key}": v for name, row in rows.items() for key, v in row["figures"].items()
    }
    with np.load(copy_of_finished.output("use") / PREDICTIONS) as arrays:
        numbers = {row["name"]: i for i, row in enumerate(table(copy_of_finished))}
        np.testing.assert_allclose(arrays[f"{numbers['age']}_asked"], [30, 50, 70] * 2)
        assert arrays[f"{numbers['sex']}_asked"].tolist() == [0, 1] * 3
        assert arrays[f"{numbers['sex']}_synthetic"].shape == (4,)
    assert verify(copy_of_finished.output("use")).items.keys() == {TABLE, PREDICTIONS}


@pytest.mark.parametrize(
    "covariates", [{}, {"sex": "F"}, {"age": 50}], ids=["nothing", "one class", "one age"]
)
def test_what_the_samples_cannot_teach_is_left_out(
    copy_of_finished: Layout, tiny: Params, covariates: dict[str, Any]
) -> None:
    assert use(asked(tiny, covariates, copy_of_finished), copy_of_finished) == {}
    assert table(copy_of_finished) == []


def test_without_a_section_the_table_is_empty(copy_of_finished: Layout, tiny: Params) -> None:
    assert use(tiny.model_copy(update={"use": None}), copy_of_finished) == {}
    assert table(copy_of_finished) == []


def test_a_run_that_was_stopped_trains_no_net_twice_and_all_for_as_long(
    copy_of_finished: Layout, tiny: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    params = asked(tiny, {"sex": ["F", "M"]}, copy_of_finished)
    trained: list[tuple[int, int]] = []

    def counted(volumes: Scans, *arguments: Any, stop: int = 2, **options: Any) -> Any:
        if len(trained) == stop:
            raise KeyboardInterrupt
        trained.append((volumes.shape[0], options["steps"]))
        return train_recogniser(volumes, *arguments, **options)

    monkeypatch.setattr(use_net, "train_recogniser", counted)
    with pytest.raises(KeyboardInterrupt):
        use(params, copy_of_finished)
    assert not any(row["figures"] for row in table(copy_of_finished))  # still the one before
    monkeypatch.setattr(use_net, "train_recogniser", lambda *a, **k: counted(*a, stop=9, **k))
    use(params, copy_of_finished)
    assert trained == [(16, 2), (6, 2), (22, 2)]  # real, synthetic, both
    manifest = (copy_of_finished.output("use") / "MANIFEST.json").read_bytes()
    use(params, copy_of_finished)
    assert len(trained) == 6
    assert (copy_of_finished.output("use") / "MANIFEST.json").read_bytes() == manifest


def test_samples_of_another_prior_are_refused(copy_of_finished: Layout, tiny: Params) -> None:
    train_prior(tiny.model_copy(update={"seed": 3}), copy_of_finished)
    with pytest.raises(IntegrityError, match="samples was made with other prior"):
        use(tiny, copy_of_finished)


def test_label_maps_are_learnt(tmp_path: Path) -> None:
    write_scans(tmp_path / "data/raw/scans", 6)
    values = tiny_values()
    values["ingest"] = {
        "raw": "data/raw/scans",
        "source": {
            "kind": "nifti", "images": "t1/*.nii.gz", "labels": "labels/*.nii.gz",
            "label_values": LABELS,
        },
        "spacing": [2.0, 2.0, 2.0], "shape": [16, 16, 16], "percentiles": [0.5, 99.5],
        "held_out": 0.34,
    }  # fmt: skip
    values["train_prior"]["conditions"] = []
    values |= {"study": None, "use": {"steps": 20}}
    values["sample"]["count"] = 3
    data, _ = run_stages(values, tmp_path)
    (row,) = table(data)
    figures = row["figures"]
    assert (row["name"], row["kind"], row["synthetic"]) == ("dice", "labels", 3)
    assert figures["real"] > 0.5
    assert figures["real"] == pytest.approx((figures["real_label_2"] + figures["real_label_7"]) / 2)
    assert figures["synthetic_over_real"] == figures["synthetic"] / figures["real"]
    with np.load(data.output("use") / PREDICTIONS) as arrays:
        shapes = {name: arrays[name].shape for name in arrays}
        assert shapes == dict.fromkeys(
            ("0_grey", "0_truth", "0_real", "0_synthetic", "0_both"), (row["held_out"], 16, 16)
        )
        assert np.unique(arrays["0_truth"]).tolist() == [0, 1, 2]
    assert CodeStore(data.output("samples")).count == 3


def test_scans_of_two_places_are_one_row() -> None:
    first, second = np.random.default_rng(0).random((2, 3, 2, 4, 4), dtype=np.float32)
    parts = [(3, lambda some: first[some]), (3, lambda some: second[some])]
    both = Scans(parts, (6, 1, 4, 4))
    expected = np.concatenate([first, second])[[5, 0, 3, 5]][:, :1]
    np.testing.assert_array_equal(both[[5, 0, 3, 5]], expected)


def test_the_plane_has_most_labels_and_up_is_up() -> None:
    labels = np.zeros((3, 4, 5), np.int64)
    labels[1, 3, 2] = labels[1, 2, 2] = 1
    found = plane(labels, labels)
    assert found.shape == (4, 3)
    assert found[:, 1].tolist() == [1, 1, 0, 0]  # the front of the head is up
    picture = np.arange(6.0).reshape(2, 3)
    np.testing.assert_array_equal(plane(picture, picture), picture)


def test_the_report_shows_the_planes_as_they_were_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[Any] = []

    def montage(rows: Any, *_: Any, **__: Any) -> bytes:
        shown.extend(rows)
        return b""

    monkeypatch.setattr(report_samples, "montage", montage)
    grey = np.random.default_rng(0).random((2, 4, 3), dtype=np.float32)
    maps = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    arrays: dict[str, np.ndarray] = {"grey": grey, **dict.fromkeys(("truth", *SOURCES), maps)}
    _pictures({"kind": "labels"}, arrays)
    assert np.array_equal(shown[0][0], grey[0])
    assert np.array_equal(shown[1][2], maps[1] / 23)


SUBJECTS = [f"s{i}" for i in range(8)]
TRUTH = np.array([0.0, 0, 0, 0, 0, 1, 1, 1])
RIGHT = {"held_out": TRUTH, "samples": np.array([0.0, 1.0]), "reconstructed": TRUTH}
GUESSED = {"held_out": np.array([0.0, 0, 0, 0, 0, 0, 1, 1])}  # 7 of 8; chance is 5 of 8


def test_figures_of_classes() -> None:
    found = {"real": RIGHT, "synthetic": GUESSED, "both": RIGHT}
    figures = of_classes(found, TRUTH, np.array([0.0, 0.0]), SUBJECTS, seed=0)
    assert figures["real"] == figures["real_low"] == figures["real_high"] == 1
    assert figures["synthetic"] == 7 / 8
    assert figures["synthetic_low"] < 7 / 8 < figures["synthetic_high"] == 1
    assert figures["chance"] == 5 / 8
    assert figures["cas"] == pytest.approx((7 / 8 - 5 / 8) / (1 - 5 / 8))
    assert (figures["obeyed"], figures["reconstructed"]) == (0.5, 1)


def test_there_is_no_relative_score_where_real_data_are_not_surely_above_chance() -> None:
    unsure = RIGHT | GUESSED
    figures = of_classes(
        {"real": unsure, "synthetic": RIGHT, "both": RIGHT}, TRUTH, np.zeros(2), SUBJECTS, seed=0
    )
    assert figures["real_low"] <= figures["chance"] < figures["real"]
    assert "cas" not in figures


def test_there_is_no_relative_score_where_the_interval_of_real_data_is_unknown() -> None:
    same = ["s0"] * len(TRUTH)  # one subject: nothing to draw from
    found = {"real": RIGHT, "synthetic": RIGHT, "both": RIGHT}
    figures = of_classes(found, TRUTH, np.zeros(2), same, seed=0)
    assert figures["real"] > figures["chance"]
    assert figures.keys().isdisjoint({"real_low", "cas"})


def test_figures_of_numbers() -> None:
    truth = np.linspace(20, 90, 8)
    right = {"held_out": truth, "samples": np.array([40.0, 60.0]), "reconstructed": truth}
    found = {"real": right, "synthetic": {"held_out": np.full(8, 50.0)}, "both": right}
    figures = of_values(found, truth, np.array([30.0, 70.0]), SUBJECTS, seed=0, mean=50.0)
    assert (figures["real"], figures["synthetic"], figures["cas"]) == (1, 0, 0)
    assert (figures["obeyed"], figures["obeyed_slope"]) == pytest.approx((1, 0.5))
    assert (
        figures["chance_mae"]
        == figures["synthetic_mae"]
        == pytest.approx(np.abs(truth - 50).mean())
    )


def test_figures_of_labels_leave_out_what_is_no_number() -> None:
    nothing = {"dice": np.array([[0.0, np.nan]] * 4)}
    found = {"real": nothing, "synthetic": nothing, "both": {"dice": np.full((4, 2), 0.5)}}
    figures = of_labels(found, [3, 9], ["a", "a", "b", "b"], seed=0)
    assert (figures["real"], figures["both_label_9"]) == (0, 0.5)
    assert not {"real_label_9", "synthetic_over_real"} & figures.keys()
