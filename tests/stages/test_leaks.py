"""One person trained on and held out: planted in a data set, and told by what ingest publishes."""

import csv
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import pytest

from tests.conftest import REPO, tiny_values
from tests.scans.test_leakage import resampled
from vqmri.errors import InputError
from vqmri.layout import Layout
from vqmri.params import Params
from vqmri.protocols import Metrics
from vqmri.scans import phantom
from vqmri.scans.leakage import LEAST
from vqmri.scans.store import VolumeStore
from vqmri.scans.volume import Volume
from vqmri.stages.ingest import ingest

SHARED = REPO.parent / "shared" / "data"
HIPPOCAMPUS, OASIS = SHARED / "hippocampus", SHARED / "oasis_t1w_ss"
RESCANS = {("1004", "1024"), ("1005", "1025"), ("1018", "1038"), ("1019", "1039")}
SPACING = 4.0  # mm


def heads(count: int) -> dict[str, Volume]:
    """Name to scan of different people."""
    people = phantom.find(count=count, seed=0)
    return {p.source: phantom.read(p, seed=0, spacing=SPACING)[0] for p in people}


def write(path: Path, scan: Volume) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image: Any = nib.Nifti1Image(scan.data[0], scan.affine)
    nib.save(image, path)


def write_table(path: Path, people: Mapping[str, str]) -> str:
    """File to person, as a table that params can name."""
    with path.open("w", newline="") as file:
        csv.writer(file, delimiter="\t").writerows([("file", "subject"), *people.items()])
    return str(path)


def ingested(root: Path, changes: Mapping[str, Any] | None = None, /, **source: Any) -> Metrics:
    """Publish the volumes of the scans in raw/, as heads; `changes` to the section ingest."""
    values = tiny_values()
    values["ingest"] |= {
        "raw": "raw",
        "source": {"kind": "nifti", "images": "*.nii*", **source},
        "held_out": 0.5,
        "shape": [48, 56, 48],
        "spacing": [SPACING] * 3,
        **(changes or {}),
    }
    return ingest(Params.model_validate(values), Layout(root))


def rows(root: Path) -> list[dict[str, str]]:
    with (Layout(root).output("volumes") / "duplicates.tsv").open(newline="") as file:
        return list(csv.DictReader(file, delimiter="\t"))


def pairs(root: Path) -> set[tuple[str, str]]:
    return {(row["first"], row["second"]) for row in rows(root)}


def sides(root: Path) -> dict[str, str]:
    """Scan to its side of the split."""
    records = VolumeStore(Layout(root).output("volumes")).records
    return {record.source: record.split for record in records}


def parted(root: Path, people: Mapping[str, str]) -> set[str]:
    """People of a table, by file name, who are on both sides."""
    found = defaultdict(set)
    for source, side in sides(root).items():
        found[people[Path(source).name]].add(side)
    return {person for person, both in found.items() if len(both) > 1}


def test_a_person_scanned_twice_is_on_one_side_if_the_table_says_so(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    people: dict[str, str] = {}
    for number, (name, scan) in enumerate(heads(8).items()):
        write(tmp_path / f"raw/{name}.nii.gz", scan)
        write(tmp_path / f"raw/again{number}.nii.gz", resampled(scan, 1.2))
        people |= {f"{name}.nii.gz": f"p{number}", f"again{number}.nii.gz": f"p{number}"}

    metrics = ingested(tmp_path)  # where each file is a person
    twice = {(f"again{n}.nii.gz", f"phantom{n:05d}.nii.gz") for n in range(8)}
    assert pairs(tmp_path) == twice
    assert {row["kind"] for row in rows(tmp_path)} == {"near-duplicate"}
    assert metrics["leaks"] == len(parted(tmp_path, people)) > 0
    said = f"{metrics['leaks']} pairs of scans seem to be one person's, trained on and held out"
    assert said in "".join(capfd.readouterr())

    table = write_table(tmp_path / "people.tsv", people)
    metrics = ingested(tmp_path, table=table)
    assert parted(tmp_path, people) == set()
    assert set(sides(tmp_path).values()) == {"train", "held_out"}
    assert (rows(tmp_path), metrics["leaks"]) == ([], 0)
    assert "trained on and held out" not in "".join(capfd.readouterr())


def test_a_person_whom_the_table_calls_by_two_names_is_an_error(tmp_path: Path) -> None:
    for name, scan in heads(3).items():
        write(tmp_path / f"raw/{name}.nii.gz", scan)
    names = ("S-01", "S01", "S02")
    people = {f"phantom{n:05d}.nii.gz": name for n, name in enumerate(names)}
    with pytest.raises(InputError, match=r"subjects 'S-01' and 'S01'.* Rename one of them"):
        ingested(tmp_path, table=write_table(tmp_path / "people.tsv", people))


def test_the_same_voxels_under_another_name_and_subject_are_told(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    people: dict[str, str] = {}
    for number, (name, scan) in enumerate(heads(6).items()):
        assert scan.affine is not None
        write(tmp_path / f"raw/{name}.nii.gz", scan)
        moved = scan.affine.copy()
        moved[:3, 3] += 7
        write(tmp_path / f"raw/copy{number}.nii", Volume(scan.data, moved))
        people |= {f"{name}.nii.gz": f"p{number}", f"copy{number}.nii": f"q{number}"}
    metrics = ingested(tmp_path, table=write_table(tmp_path / "people.tsv", people))
    found = rows(tmp_path)
    assert pairs(tmp_path) == {(f"copy{n}.nii", f"phantom{n:05d}.nii.gz") for n in range(6)}
    assert {(row["kind"], row["correlation"]) for row in found} == {("same-voxels", "1.0")}
    side = sides(tmp_path)
    for row in found:
        assert row["leaks"] == str(side[row["first"]] != side[row["second"]])
    leaking = sum(row["leaks"] == "True" for row in found)
    assert 0 < leaking < 6  # both are seen
    assert metrics["leaks"] == leaking
    assert [row["leaks"] for row in found[:leaking]] == ["True"] * leaking  # these come first
    assert f"{leaking} pairs of scans seem to be one person's" in "".join(capfd.readouterr())


@pytest.mark.parametrize("factor", [1.0, 1.3])
def test_a_resampled_copy_among_others_is_told(tmp_path: Path, factor: float) -> None:
    scans = heads(14)
    for name, scan in scans.items():
        write(tmp_path / f"raw/{name}.nii.gz", scan)
    write(tmp_path / "raw/copy.nii.gz", resampled(scans["phantom00005"], factor))
    ingested(tmp_path)
    (row,) = rows(tmp_path)
    assert (row["first"], row["second"]) == ("copy.nii.gz", "phantom00005.nii.gz")
    assert row["kind"] == "near-duplicate"
    assert LEAST <= float(row["correlation"]) < 1


@pytest.mark.skipif(not HIPPOCAMPUS.is_dir(), reason="the shared data are not here")
def test_left_and_right_hippocampus_are_on_one_side(tmp_path: Path) -> None:
    with (HIPPOCAMPUS / "subjects.tsv").open(newline="") as file:
        table = csv.DictReader(file, delimiter="\t")
        people = {row["file"]: row["inferred_subject"] for row in table}
    small = {"raw": str(HIPPOCAMPUS), "shape": [20, 28, 20], "spacing": [2.0] * 3, "held_out": 0.19}
    source = {"images": "imagesTr/*.nii.gz"}
    column = {"table": "subjects.tsv", "subject_column": "inferred_subject"}
    metrics = ingested(tmp_path, small, **source, **column)
    assert {Path(scan).name for scan in sides(tmp_path)} == set(people)
    assert metrics["held_out_volumes"] > 20
    assert parted(tmp_path, people) == set()
    assert metrics["leaks"] == 0
    ingested(tmp_path, small, **source)
    assert len(parted(tmp_path, people)) > 10  # which is what the table is for


@pytest.mark.skipif(not OASIS.is_dir(), reason="the shared data are not here")
def test_rescans_of_oasis_are_told_and_the_table_keeps_them_on_one_side(tmp_path: Path) -> None:
    with (OASIS / "demographics.tsv").open(newline="") as file:
        table = csv.DictReader(file, delimiter="\t")
        people = {f"{row['id']}_SS.nii.gz": row["oasis_subject"] for row in table}
    again = {(f"{first}_SS.nii.gz", f"{second}_SS.nii.gz") for first, second in RESCANS}
    metrics = ingested(tmp_path, {"raw": str(OASIS)}, images="*_SS.nii.gz")
    assert pairs(tmp_path) == again
    assert metrics["leaks"] == len(parted(tmp_path, people)) > 0

    named = write_table(tmp_path / "people.tsv", people)
    metrics = ingested(tmp_path, {"raw": str(OASIS)}, images="*_SS.nii.gz", table=named)
    assert len(sides(tmp_path)) == 26
    assert parted(tmp_path, people) == set()
    assert (rows(tmp_path), metrics["leaks"]) == ([], 0)
