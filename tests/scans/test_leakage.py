import csv
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from vqmri.scans import leakage, nifti
from vqmri.scans.leakage import (
    LEAST,
    MOST,
    Fingerprint,
    Pair,
    fingerprint,
    near_duplicates,
    threshold,
    thumbnails,
)
from vqmri.scans.normalise import normalise
from vqmri.scans.split import HELD_OUT, TRAIN, split_subjects
from vqmri.scans.volume import Record, Volume

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"
OASIS = SHARED / "oasis_t1w_ss"
HIPPOCAMPUS = SHARED / "hippocampus" / "subjects.tsv"
SHAPE = (32, 40, 36)


def head(person: int, shape: tuple[int, int, int] = SHAPE) -> Volume:
    """An ellipsoid on air with folds that are each person's own, at 5 mm."""
    axes = np.indices(shape) - np.reshape(shape, (3, 1, 1, 1)) / 2
    inside = (axes**2 / np.reshape([12, 15, 13], (3, 1, 1, 1)) ** 2).sum(axis=0) < 1
    noise = np.random.default_rng(person).standard_normal(shape)
    folds = ndimage.gaussian_filter(noise, 1.5)
    data = inside * (1 + 0.3 * folds / folds.std())
    return Volume((np.clip(data, 0, None) * 900).astype(np.float32)[None], np.diag([5.0, 5, 5, 1]))


def of(scan: Volume) -> Fingerprint:
    return fingerprint(scan, *prepared(scan))


def prepared(scan: Volume) -> tuple[Volume, tuple[tuple[int, int], ...]]:
    done = normalise(scan, spacing=(5.0,) * 3, shape=SHAPE, percentiles=(0.5, 99.5))
    return done.volume, done.box


def correlation(first: Fingerprint, second: Fingerprint) -> float:
    rows = thumbnails([first, second])
    return float(rows[0] @ rows[1])


def resampled(scan: Volume, factor: float) -> Volume:
    """Coarser by `factor` and back, brighter, with noise: as another program might export it."""
    coarse = ndimage.zoom(scan.data[0], 1 / factor, order=1)
    zoom = np.divide(scan.data.shape[1:], coarse.shape)
    data = ndimage.zoom(coarse, zoom, order=1)
    noise = 0.01 * data.max() * np.random.default_rng(0).standard_normal(data.shape)
    return Volume((data * 1.7 + 3 + noise).astype(np.float32)[None], scan.affine)


def pairs_of(
    scans: dict[str, Volume], sides: dict[str, str] | None = None, limit: int = 1000
) -> list[Pair]:
    return near_duplicates(
        {source: of(scan) for source, scan in scans.items()},
        {source: source for source in scans},
        sides or dict.fromkeys(scans, TRAIN),
        limit=limit,
    )


def test_a_fingerprint_is_plain_json() -> None:
    one = of(head(0))
    assert Fingerprint(**json.loads(json.dumps(asdict(one)))) == one
    assert len(one.thumbnail) < 20_000
    assert of(head(0)) == one


def test_same_voxels_are_found_whatever_the_affine_and_the_zeros_sign() -> None:
    scan = head(0)
    moved = Volume(np.where(scan.data == 0, -0.0, scan.data), np.diag([-5.0, 5, 4, 1]))
    scans = {"a": scan, "copy/b": moved, "c": head(1), "d": scan}
    sides = {"a": TRAIN, "copy/b": HELD_OUT, "c": TRAIN, "d": TRAIN}
    assert pairs_of(scans, sides) == [
        Pair("a", "copy/b", "same-voxels", 1.0, leaks=True),
        Pair("a", "d", "same-voxels", 1.0, leaks=False),
    ]


def test_the_same_values_in_another_shape_are_other_voxels() -> None:
    data = np.arange(24, dtype=np.float32)
    scans = [Volume(data.reshape(1, *shape)) for shape in ((4, 6), (6, 4))]
    first, second = (fingerprint(scan, scan, ((0, 4), (0, 4))) for scan in scans)
    assert first.voxels != second.voxels
    assert first.thumbnail == ""  # pictures are compared by their pixels alone
    assert near_duplicates({"a": first, "b": first}, {"a": "1", "b": "1"}, {"a": "", "b": ""})


@pytest.mark.parametrize("factor", [1.0, 1.3])
def test_a_resampled_copy_is_found_among_others(factor: float) -> None:
    scans = {f"{person}": head(person) for person in range(12)}
    scans["copy"] = resampled(scans["7"], factor)
    (pair,) = pairs_of(scans, dict.fromkeys(scans, TRAIN) | {"copy": HELD_OUT})
    assert (pair.first, pair.second, pair.kind) == ("7", "copy", "near-duplicate")
    assert pair.leaks
    assert LEAST <= pair.correlation <= 1


def test_a_copy_is_found_where_there_is_nothing_else() -> None:
    scan = head(0)
    louder = replace(scan, data=scan.data * 2)
    assert [pair.kind for pair in pairs_of({"a": scan, "b": louder})] == ["near-duplicate"]
    assert pairs_of({"a": scan, "b": head(1)}) == []
    assert pairs_of({"a": scan}) == []
    assert pairs_of({}) == []


def test_the_thumbnail_moves_with_the_head() -> None:
    scan = head(0)
    moved = Volume(np.roll(scan.data, (2, -1, 2), axis=(1, 2, 3)), scan.affine)
    assert correlation(of(scan), of(moved)) > 0.98


def test_another_orientation_of_a_scan_is_found() -> None:
    scan = head(0)
    assert scan.affine is not None
    flip = np.diag([-1.0, 1, 1, 1])
    flip[0, 3] = SHAPE[0] - 1
    turned = Volume(scan.data[:, ::-1].copy(), scan.affine @ flip)
    assert of(scan).voxels != of(turned).voxels
    assert correlation(of(scan), of(turned)) > 0.999


def test_what_is_outside_the_field_of_view_does_not_count() -> None:
    volume, _ = prepared(head(0))
    box = ((3, 29), (4, 36), (2, 34))
    data = np.full_like(volume.data, 0.7)
    inside = (slice(None), *(slice(start, stop) for start, stop in box))
    data[inside] = volume.data[inside]
    other = replace(volume, data=data)
    assert fingerprint(volume, volume, box).thumbnail == fingerprint(volume, other, box).thumbnail


def test_scans_of_one_subject_are_expected_to_be_alike() -> None:
    scan = head(0)
    prints = {"a": of(scan), "b": of(resampled(scan, 1.0)), "c": of(scan)}
    found = near_duplicates(prints, dict.fromkeys(prints, "x"), dict.fromkeys(prints, TRAIN))
    assert [(pair.first, pair.second, pair.kind) for pair in found] == [("a", "c", "same-voxels")]


def test_blocks_and_the_limit_change_nothing_but_the_number(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    scans = {f"{person}": head(person) for person in range(10)}
    scans |= {f"{person}-copy": resampled(head(person), 1 + person / 20) for person in range(4)}
    whole = pairs_of(scans)
    assert sorted((pair.first, pair.second) for pair in whole) == [
        (f"{person}", f"{person}-copy") for person in range(4)
    ]
    monkeypatch.setattr(leakage, "_BLOCK", 3)
    blocks = pairs_of(scans)
    assert [replace(pair, correlation=1) for pair in blocks] == [
        replace(pair, correlation=1) for pair in whole
    ]
    assert pairs_of(scans, limit=2) == blocks[:2]


def test_the_threshold_follows_what_is_usual() -> None:
    random = np.random.default_rng(0)
    people = np.arange(200)
    shared, own = random.standard_normal((1, 500)), random.standard_normal((200, 500))
    unlike = (20 * own).astype(np.int8)
    alike = (20 * (shared + 0.4 * own)).astype(np.int8)
    same = (20 * (shared + 0.1 * own)).astype(np.int8)
    assert threshold(unlike, people) == pytest.approx(LEAST)
    assert LEAST < threshold(alike, people) < MOST
    assert threshold(same, people) == pytest.approx(MOST)
    assert threshold(alike, np.zeros(200, dtype=int)) == LEAST


def test_thumbnails_of_two_data_sets_do_not_compare() -> None:
    small = normalise(head(0), spacing=(5.0,) * 3, shape=(16, 40, 16), percentiles=(0.5, 99.5))
    other = fingerprint(head(0), small.volume, ((0, 16), (0, 40), (0, 16)))
    with pytest.raises(ValueError, match="one size"):
        thumbnails([of(head(0)), other])


def record(number: int, source: str, subject: str, split: str) -> Record:
    return Record(number, subject, source, "", [], [], [], [], {}, None, split)


def on_both_sides(records: Sequence[Record]) -> set[str]:
    train, held = ({r.subject for r in records if r.split == side} for side in (TRAIN, HELD_OUT))
    return train & held


@pytest.mark.skipif(not HIPPOCAMPUS.is_file(), reason="the shared data are not here")
def test_left_and_right_of_one_person_share_a_side() -> None:
    """A thumbnail cannot tell that two hippocampi are of one person; the table does."""
    with HIPPOCAMPUS.open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    people = [row["inferred_subject"] for row in rows]
    assert max(Counter(people).values()) == 2
    sides = split_subjects(people, held_out=0.19, seed=0)
    records = [
        record(number, row["file"], row["inferred_subject"], sides[row["inferred_subject"]])
        for number, row in enumerate(rows)
    ]
    assert on_both_sides(records) == set()
    by_file = split_subjects([row["file"] for row in rows], held_out=0.19, seed=0)
    leaky = [replace(one, split=by_file[one.source]) for one in records]
    assert len(on_both_sides(leaky)) > 10


@pytest.mark.skipif(not OASIS.is_dir(), reason="the shared data are not here")
def test_rescans_of_a_person_are_told_from_other_people() -> None:
    """Two rescans, the least alike of the four among them, and four strangers."""
    names = ["1019", "1039", "1004", "1024", "1000", "1007", "1101", "1128"]
    prints = {}
    for name in names:
        scan, _ = nifti.read(OASIS / f"{name}_SS.nii.gz")
        done = normalise(scan, spacing=(2.0,) * 3, shape=(96, 112, 96), percentiles=(0.5, 99.5))
        prints[name] = fingerprint(scan, done.volume, done.box)
    found = near_duplicates(prints, {name: name for name in names}, dict.fromkeys(names, TRAIN))
    assert [(pair.first, pair.second) for pair in found] == [("1004", "1024"), ("1019", "1039")]
