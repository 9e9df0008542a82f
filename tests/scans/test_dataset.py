import json
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pytest

from vqmri.scans.dataset import QUANTILES, Summary, describe, orientation, summarise
from vqmri.scans.split import HELD_OUT, TRAIN
from vqmri.scans.volume import Record, Volume

NO_SPREAD: dict[str, float] = {}


def record(number: int, **changes: Any) -> Record:
    row = Record(
        index=number,
        subject=f"sub-{number // 2}",
        source=f"{number}.nii.gz",
        sha256="",
        shape=[30, 40, 50],
        affine=np.diag([-0.8680000001, 0.868, 1.2, 1.0]).tolist(),
        normalised_affine=[],
        field_of_view=[],
        covariates={"age": float(20 + number), "sex": "F" if number % 3 else None},
        label=None,
        split=TRAIN if number < 4 else HELD_OUT,
    )
    return replace(row, **changes)


def summary(number: int) -> Summary:
    return Summary([float(number + i) for i in range(len(QUANTILES))], 0.0, 0.3, 0.2, 0.1)


RECORDS = [record(number) for number in range(6)]
SUMMARIES = {one.source: summary(one.index) for one in RECORDS}


def test_a_summary_is_what_numpy_says() -> None:
    raw = np.arange(1000, dtype=np.float32).reshape(1, 10, 10, 10)
    raw[raw > 900] = 900
    padded = np.zeros((1, 12, 10, 10), dtype=np.float32)
    padded[:, 1:11] = raw / 900
    box = ((1, 11), (0, 10), (0, 10))
    found = summarise(Volume(raw, np.eye(4)), Volume(padded, np.eye(4)), box)
    assert found.quantiles == pytest.approx(np.quantile(raw, QUANTILES), rel=1e-5)
    assert found.at_maximum == pytest.approx(100 / 999, rel=1e-5)
    assert found.foreground == (raw > 45).mean()
    assert found.mean == pytest.approx(float(raw.mean()) / 900, rel=1e-5)
    assert found.std == pytest.approx(float(raw.std()) / 900, rel=1e-5)
    assert Summary(**json.loads(json.dumps(asdict(found)))) == found


def test_quantiles_of_a_large_scan_are_of_some_of_its_voxels_but_the_ends_of_all() -> None:
    raw = np.random.default_rng(0).random((1, 128, 128, 160), dtype=np.float32)
    raw[0, 5, 7, 11], raw[0, 70, 3, 3] = 9, -9
    scan = Volume(raw, np.eye(4))
    found = summarise(scan, scan, ((0, 128), (0, 128), (0, 160))).quantiles
    assert (found[0], found[-1]) == (-9, 9)
    assert found[1:-1] == pytest.approx(QUANTILES[1:-1], abs=0.005)


def test_neither_order_nor_the_last_bit_changes_a_description() -> None:
    whole = json.dumps(describe(RECORDS, SUMMARIES))
    assert json.dumps(describe(RECORDS[::-1], dict(reversed(SUMMARIES.items())))) == whole


def test_scans_and_subjects_are_counted_by_side() -> None:
    found = describe(RECORDS, SUMMARIES)
    assert (found["scans"], found["subjects"]) == (6, 3)
    assert found["splits"] == {
        HELD_OUT: {"scans": 2, "subjects": 1},
        TRAIN: {"scans": 4, "subjects": 2},
    }


def test_geometry_is_that_of_the_raw_scans() -> None:
    other = record(6, shape=[30, 40, 20], affine=np.diag([2.0, 2.0, 3.0, 1.0]).tolist())
    raw = describe([*RECORDS, other], SUMMARIES)["raw"]
    assert raw["shapes"] == {"30×40×50": 6, "30×40×20": 1}
    assert raw["spacings"] == {"0.868×0.868×1.2": 6, "2×2×3": 1}
    assert raw["orientations"] == {"LAS": 6, "RAS": 1}
    assert raw["voxels_per_axis"][2] == {"min": 20, "q1": 50, "median": 50, "q3": 50, "max": 50}
    assert raw["spacing_per_axis"][2] == {"min": 1.2, "q1": 1.2, "median": 1.2, "q3": 1.2, "max": 3}


def test_extents_are_those_along_the_axes_of_ras() -> None:
    """An array whose axes run I, R, P: it is turned, and an oblique one goes to its nearest."""
    affine = np.array([[0, 2.0, 0, 0], [0, 0, -3.0, 0], [-1.0, 0, 0, 0], [0, 0, 0, 1]])
    tilt = np.eye(4)
    tilt[:2, :2] = [[np.cos(0.3), -np.sin(0.3)], [np.sin(0.3), np.cos(0.3)]]
    for turned in (affine, tilt @ affine):
        raw = describe([record(0, affine=turned.tolist())], {})["raw"]
        assert [spread["max"] for spread in raw["ras_spacing"]] == [2, 3, 1]
        assert [spread["max"] for spread in raw["ras_extent"]] == [80, 150, 30]
    both = [record(0), record(1, shape=[60, 40, 50])]
    extent = describe(both, {})["raw"]["ras_extent"][0]
    assert (extent["min"], extent["max"]) == pytest.approx((26.04, 52.08))
    assert extent["p95"] == pytest.approx(0.05 * 26.04 + 0.95 * 52.08)


def test_the_foregrounds_extents_are_those_of_scans_that_are_cropped_about_it() -> None:
    steps = [[{"step": "crop", "start": [0, 0, 0], "about": "scan"}]]
    steps += [
        [{"step": "crop", "about": "foreground", "extent": [n, 2.0 * n, 3.0]}] for n in (4, 8)
    ]
    records = [record(i, steps=one) for i, one in enumerate(steps)]
    along = describe(records, {})["raw"]["foreground_extent"]
    assert [(axis["min"], axis["max"]) for axis in along] == [(4, 8), (8, 16), (3, 3)]
    assert along[0]["p95"] == pytest.approx(0.05 * 4 + 0.95 * 8)


def test_covariates_are_numbers_or_names() -> None:
    found = describe(RECORDS, SUMMARIES)["covariates"]
    assert list(found) == ["age", "sex"]
    assert found["age"] == {
        "min": 20, "q1": 21.25, "median": 22.5, "q3": 23.75, "max": 25, "missing": 0,
    }  # fmt: skip
    assert found["sex"] == {"counts": {"F": 4}, "missing": 2}


def test_a_column_without_values_or_of_two_kinds() -> None:
    values: list[Any] = [None, float("nan"), None]
    rows = [record(i, covariates={"x": v}) for i, v in enumerate(values)]
    assert describe(rows, {})["covariates"] == {"x": {"counts": {}, "missing": 3}}
    rows = [record(i, covariates={"x": v}) for i, v in enumerate([1.0, "old", True])]
    counts = {"1.0": 1, "True": 1, "old": 1}
    assert describe(rows, {})["covariates"] == {"x": {"counts": counts, "missing": 0}}


def test_intensities_are_spread_over_the_scans() -> None:
    found = describe(RECORDS, SUMMARIES)
    assert found["intensities"]["quantile_0.5"]["median"] == 5.5
    assert list(found["intensities"])[:2] == ["quantile_0", "quantile_0.01"]
    assert found["normalised"]["foreground"]["max"] == 0.3
    assert describe(RECORDS, {})["normalised"]["mean"] == NO_SPREAD


def test_pictures_have_a_shape_alone() -> None:
    found = describe([record(0, shape=[28, 28], affine=[])], {})
    assert found["raw"]["shapes"] == {"28×28": 1}
    assert found["raw"]["orientations"] == {}
    assert found["raw"]["spacing_per_axis"] == []
    assert found["raw"]["ras_extent"] == []
    assert found["raw"]["foreground_extent"] == []
    json.dumps(found, allow_nan=False)


def test_nothing_is_described_as_nothing() -> None:
    assert describe([], {})["scans"] == 0


def test_orientation() -> None:
    assert orientation(np.diag([-1.0, 1, 1, 1])) == "LAS"
