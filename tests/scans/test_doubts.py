import tracemalloc
from base64 import b64encode
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from vqmri.scans.dataset import QUANTILES, Summary, summarise
from vqmri.scans.doubts import (
    WARNINGS,
    Doubt,
    displacement,
    doubts_of_dataset,
    doubts_of_scan,
    likeness,
    robust_z,
)
from vqmri.scans.leakage import Fingerprint, fingerprint
from vqmri.scans.volume import Volume

SHAPE = (12, 14, 10)
BOX = tuple((0, n) for n in SHAPE)


def scan_of(data: np.ndarray, spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> Volume:
    return Volume(data[None].astype(np.float32), np.diag([*spacing, 1.0]))


def noise(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(SHAPE)


def codes(scan: Volume, qform: np.ndarray | None = None) -> list:
    summary = summarise(scan, scan, BOX)
    found = doubts_of_scan("a.nii", replace(scan, qform=qform), summary)
    assert all(doubt.source == "a.nii" and doubt.reason for doubt in found)
    return [doubt.code for doubt in found]


def summaries(count: int) -> dict[str, Summary]:
    random = np.random.default_rng(0)
    return {
        f"{number:03d}": Summary([0.0] * len(QUANTILES), 0.0, *random.normal(0.3, 0.02, 3).tolist())
        for number in range(count)
    }


def prints(count: int, spread: float) -> dict[str, Fingerprint]:
    """Of scans that share what a data set has in common."""
    shared = noise(999)
    volumes = [scan_of(shared + spread * noise(number)) for number in range(count)]
    return {f"{n:03d}": fingerprint(volume, volume, BOX) for n, volume in enumerate(volumes)}


def test_a_doubt_has_a_code_of_the_table() -> None:
    with pytest.raises(ValueError, match="unknown warning 'ugly'"):
        Doubt("a", "ugly", "it is ugly")


def test_an_ordinary_scan_raises_none() -> None:
    scan = scan_of(noise(), (1.0, 1.0, 3.0))
    assert codes(scan) == []
    assert codes(scan, scan.affine) == []


def test_forms_that_disagree() -> None:
    scan = scan_of(noise())
    near, far, flipped = np.eye(4), np.eye(4), np.diag([-1.0, 1, 1, 1])
    near[0, 3], far[0, 3] = 0.9, 1.1
    assert codes(scan, near) == []
    assert codes(scan, far) == ["forms-disagree"]
    assert codes(scan, flipped) == ["forms-disagree"]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_qform_that_is_not_finite_disagrees(value: float) -> None:
    whole, offset = np.full((4, 4), value), np.eye(4)
    offset[0, 3] = value
    assert codes(scan_of(noise()), whole) == ["forms-disagree"]
    assert codes(scan_of(noise()), offset) == ["forms-disagree"]


def test_a_turn_is_measured_at_the_corners() -> None:
    turn = np.eye(4)
    turn[:2, :2] = [[0, -1], [1, 0]]
    assert displacement(np.eye(4), turn, (11, 11, 11)) == pytest.approx(20)
    assert displacement(turn, turn, (11, 11, 11)) == 0


def test_anisotropic_voxels() -> None:
    assert codes(scan_of(noise(), (1.0, 1.0, 3.1))) == ["anisotropic"]
    assert codes(scan_of(noise(), (3.2, 1.0, 1.0))) == ["anisotropic"]


def test_clipped_intensities() -> None:
    assert codes(scan_of(np.minimum(noise(), 0.98))) == ["clipped"]
    assert codes(scan_of(noise() > 0.5)) == ["clipped"]


def test_a_picture_raises_none() -> None:
    picture = Volume(np.minimum(noise()[None, :, :, 0], 0.5).astype(np.float32))
    summary = Summary([0.0] * len(QUANTILES), 0.9, 0.5, 0.5, 0.1)
    assert doubts_of_scan("a.png", picture, summary) == []


@pytest.mark.parametrize("name", ["foreground", "mean", "std"])
@pytest.mark.parametrize("value", [0.0, 0.6])
def test_a_scan_far_from_the_others_is_named(name: str, value: float) -> None:
    rows = summaries(40)
    assert doubts_of_dataset(rows, {}) == []
    changes: dict[str, Any] = {name: value}
    rows["017"] = replace(rows["017"], **changes)
    (doubt,) = doubts_of_dataset(rows, {})
    assert (doubt.source, doubt.code) == ("017", "outlier")
    assert doubt.reason.startswith(f"{name} {value:.3g}, median 0.")


def test_a_scan_that_looks_like_no_other_is_named() -> None:
    rows, thumbs = summaries(40), prints(40, 0.5)
    assert doubts_of_dataset(rows, thumbs) == []
    other = scan_of(noise(1234))
    thumbs["017"] = fingerprint(other, other, BOX)
    (doubt,) = doubts_of_dataset(rows, thumbs)
    assert (doubt.source, doubt.code) == ("017", "outlier")
    assert doubt.reason.startswith("likeness ")


def test_a_scan_more_usual_than_the_others_is_not_odd() -> None:
    thumbs = prints(40, 0.5)
    usual = scan_of(noise(999) + 0.25)
    thumbs["017"] = fingerprint(usual, usual, BOX)
    assert doubts_of_dataset(summaries(40), thumbs) == []


def test_likeness_takes_little_memory_however_many_scans_there_are() -> None:
    cells = np.random.default_rng(0).integers(-40, 127, (50, 4000), dtype=np.int8)
    some = [Fingerprint("", b64encode(row.tobytes()).decode()) for row in cells]
    count = 6000
    tracemalloc.start()
    try:
        found = likeness(some * (count // len(some)))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 3 * count * cells.shape[1]
    rows = cells / np.linalg.norm(cells.astype(float), axis=1, keepdims=True)
    mean = rows.mean(axis=0)
    expected = rows @ (mean / np.linalg.norm(mean))
    assert np.allclose(found.reshape(-1, len(some)), expected, rtol=0, atol=1e-6)


def test_few_scans_have_no_outlier() -> None:
    rows = summaries(19)
    rows["003"] = replace(rows["003"], mean=0.9)
    assert doubts_of_dataset(rows, {}) == []


def test_equal_scans_have_a_spread_that_is_not_nothing() -> None:
    values = np.full(30, 0.3)
    values[0] += 0.001
    assert np.abs(robust_z(values)).max() == pytest.approx(0.5)


def test_every_warning_has_a_meaning() -> None:
    assert all(meaning for meaning in WARNINGS.values())
