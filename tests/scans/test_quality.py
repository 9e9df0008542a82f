import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from vqmri.scans.normalise import normalise
from vqmri.scans.outcomes import Outcome, read, write
from vqmri.scans.quality import Look, assess, look
from vqmri.scans.split import HELD_OUT, TRAIN
from vqmri.scans.volume import Record, Rejection, Volume


def scan(seed: int, affine: Any = None) -> Volume:
    random = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*[np.linspace(-1, 1, 24)] * 3, indexing="ij"))
    data = sum(
        np.exp(-((grid - random.uniform(-0.6, 0.6, (3, 1, 1, 1))) ** 2).sum(0) / 0.05)
        for _ in range(6)
    )
    affine = np.diag([2.0, 2.0, 2.0, 1.0]) if affine is None else affine
    return Volume(np.float32(1000) * data[None].astype(np.float32), affine)


def seen(source: str, volume: Volume) -> Look:
    done = normalise(volume, spacing=(2, 2, 2), shape=(24, 24, 24), percentiles=(0.5, 99.5))
    found = look(source, volume, done.volume, done.box)
    assert found is not None
    return found


def record(source: str, subject: str, split: str) -> Record:
    return Record(0, subject, source, "", [24, 24, 24], np.diag([2.0, 2.0, 2.0, 1.0]).tolist(),
                  np.eye(4).tolist(), [[0, 24]] * 3, {"age": 50.0}, None, split)  # fmt: skip


def test_a_copy_under_another_name_and_subject_is_named_as_a_leak() -> None:
    looks = [seen(f"{n}.nii", scan(n)) for n in range(5)] + [seen("copy.nii", scan(3))]
    records = [record(f"{n}.nii", f"p{n}", TRAIN) for n in range(5)]
    quality = assess(looks, [*records, record("copy.nii", "q", HELD_OUT)])
    (pair,) = quality.pairs
    assert (pair.first, pair.second, pair.kind, pair.leaks) == (
        "3.nii", "copy.nii", "same-voxels", True,
    )  # fmt: skip
    assert quality.leaks == 1
    files = quality.files()
    assert (
        files["duplicates.tsv"].decode().splitlines()[1]
        == "3.nii\tcopy.nii\tsame-voxels\t1.0\tTrue"
    )
    assert json.loads(files["dataset.json"])["scans"] == 6
    assert files["warnings.tsv"].decode() == "source\tcode\treason\n"


def test_an_odd_scan_has_a_row() -> None:
    thick = scan(0, np.diag([1.0, 1.0, 4.0, 1.0]))
    looks = [seen("thick.nii", thick), seen("other.nii", scan(1))]
    records = [record("thick.nii", "a", TRAIN), record("other.nii", "b", HELD_OUT)]
    rows = assess(looks, records).files()["warnings.tsv"].decode().splitlines()
    assert rows[1] == "thick.nii\tanisotropic\tvoxels of 1 × 1 × 4 mm"


def test_a_scan_whose_forms_disagree_has_a_row() -> None:
    volume = scan(0)
    assert volume.affine is not None
    qform = volume.affine.copy()
    qform[2, 3] += 7
    looks = [seen("odd.nii", replace(volume, qform=qform)), seen("other.nii", scan(1))]
    records = [record("odd.nii", "a", TRAIN), record("other.nii", "b", HELD_OUT)]
    rows = assess(looks, records).files()["warnings.tsv"].decode().splitlines()
    assert rows[1:] == ["odd.nii\tforms-disagree\ta corner is 7 mm apart"]


def test_what_came_of_scans_is_read_as_it_was_written(tmp_path: Path) -> None:
    found = seen("a.nii", scan(0, np.diag([1.0, 1.0, 4.0, 1.0])))
    outcomes = [
        Outcome("a", record("a.nii", "a", TRAIN), found),
        Outcome("b", rejection=Rejection("b.nii", "mask-empty", "no voxel")),
    ]
    write(tmp_path, 3, outcomes)
    assert read(tmp_path, 3) == outcomes


def test_nobody_looks_at_pictures() -> None:
    picture = Volume(np.zeros((1, 8, 8), np.float32))
    assert look("a.png", picture, picture, ((0, 8), (0, 8))) is None
