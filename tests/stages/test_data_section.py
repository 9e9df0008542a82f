"""What the report says of the data set, from published volumes made by hand and by ingest."""

import csv
import json
import re
from collections.abc import Sequence
from dataclasses import astuple
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vqmri.errors import IntegrityError
from vqmri.evaluation.contact_sheet import DOUBTFUL_COLOUR, HELD_OUT_COLOUR
from vqmri.evaluation.report import Section, render
from vqmri.layout import Layout
from vqmri.outputs import Identity, Manifest
from vqmri.scans.dataset import Summary, describe
from vqmri.scans.doubts import WARNINGS, Doubt
from vqmri.scans.leakage import Pair
from vqmri.scans.quality import DATASET, DUPLICATES, REJECTIONS, WARNINGS_TABLE, Quality
from vqmri.scans.store import VolumeStore, VolumeWriter
from vqmri.scans.table import tsv
from vqmri.scans.volume import Channel, Record, Rejection
from vqmri.stages.data_section import MOST_ROWS, choose, data_sections, evenly

AFFINE = np.diag([2.0, 2.0, 2.0, 1.0]).tolist()
HELD = 4  # every fourth is held out


def record(index: int, source: str, space: tuple[int, ...]) -> Record:
    affine = AFFINE if len(space) == 3 else []
    return Record(
        index=index, subject=f"p{index}", source=source, sha256="", shape=list(space),
        affine=affine, normalised_affine=affine, field_of_view=[[0, n] for n in space],
        covariates={"age": 20.0 + index, "sex": "FM"[index % 2]} if affine else {},
        label=None, split="held_out" if index % HELD == 0 else "train",
    )  # fmt: skip


def published(
    folder: Path,
    sources: Sequence[str],
    *,
    space: tuple[int, ...] = (6, 8, 4),
    doubts: Sequence[Doubt] = (),
    pairs: Sequence[Pair] = (),
    rejections: Sequence[Rejection] = (),
) -> Path:
    """Volumes of which number i is i + 1 of 255 everywhere, published in `folder`."""
    count = len(sources)
    folder.mkdir()
    records = [record(index, source, space) for index, source in enumerate(sources)]
    writer = VolumeWriter(folder)
    writer.create(count, 1, space)
    values = (np.arange(count, dtype=np.float32) % 255 + 1) / 255
    blocks = np.broadcast_to(values.reshape(-1, 1, *[1] * len(space)), (count, 1, *space))
    size = 8 if len(space) == 3 else count
    for shard in range(-(-count // size)):
        writer.write_shard(shard, blocks[shard * size : (shard + 1) * size].copy())
    writer.finish(records, (2.0,) * 3 if len(space) == 3 else (), [Channel("image")])
    table = tsv(["source", "code", "reason"], [astuple(rejection) for rejection in rejections])
    (folder / REJECTIONS).write_bytes(table)
    if len(space) == 3:
        summaries = {source: Summary([0.0] * 7, 0.0, 0.5, 0.5, 0.1) for source in sources}
        quality = Quality(list(doubts), list(pairs), describe(records, summaries))
        for name, content in quality.files().items():
            (folder / name).write_bytes(content)
    Manifest.of(folder, Identity("ingest", 1, {}, {})).write(folder)
    return folder


def sections(folder: Path) -> dict[str, Section]:
    return {section.title: section for section in data_sections(folder, VolumeStore(folder))}


def sheet(found: dict[str, Section]) -> np.ndarray:
    return np.asarray(Image.open(BytesIO(found["Data"].pictures[0][1])).convert("RGB"))


def marked(image: np.ndarray, index: int) -> set[str]:
    """Names of the frames round volume `index`, which must be on the sheet."""
    rows, columns = np.nonzero((image == index + 1).all(axis=-1))
    assert len(rows), index
    frame = image[rows.min() - 6 : rows.max() + 7, columns.min() - 6 : columns.max() + 7]
    colours = {"held out": HELD_OUT_COLOUR, "doubtful": DOUBTFUL_COLOUR}
    return {name for name, colour in colours.items() if (frame == colour).all(axis=-1).any()}


def test_the_sheet_marks_held_out_and_doubtful_scans_and_says_where_they_are(
    tmp_path: Path,
) -> None:
    names = [f"s{index:02d}.nii" for index in range(14)]
    folder = published(
        tmp_path / "volumes", names,
        doubts=[Doubt(names[4], "clipped", "much"), Doubt(names[5], "outlier", "far")],
        pairs=[Pair(names[1], names[2], "near-duplicate", 0.91, False),
               Pair(names[11], names[12], "same-voxels", 1.0, True)],
    )  # fmt: skip
    found = sections(folder)
    assert list(found) == ["Data", "Data: warnings", "Data: duplicates", "Data: rejections"]
    image = sheet(found)
    for index in range(14):
        expected = {"held out"} if index % HELD == 0 else set()
        assert marked(image, index) == expected | (
            {"doubtful"} if index in (4, 5, 11, 12) else set()
        )
    caption = found["Data"].pictures[0][0]
    assert "14 of 14 scans" in caption
    assert "held out (4)" in caption
    assert "split (4)" in caption
    assert found["Data: warnings"].rows == [
        (names[4], "clipped", "much", "1·5"), (names[5], "outlier", "far", "1·6"),
    ]  # fmt: skip
    assert ("clipped", "1", WARNINGS["clipped"]) in found["Data: warnings"].table
    duplicates = found["Data: duplicates"]
    assert duplicates.rows[0] == (names[11], names[12], "same-voxels", "1.0", "yes", "2·2, 2·3")
    assert duplicates.rows[1][4] == "no"
    assert "2 pairs" in duplicates.text
    assert "Leaks across the split: 1: one is trained on" in duplicates.text


def test_the_summary_is_that_of_dataset_json(tmp_path: Path) -> None:
    found = sections(published(tmp_path / "volumes", [f"{i:02d}" for i in range(12)]))["Data"]
    table = {name: (value, more) for name, value, more in found.table}
    assert table["scans"] == ("12", "9 train, 3 held out")
    assert table["subjects"] == ("12", "9 train, 3 held out")
    assert table["voxels as read"] == ("6 × 8 × 4", "6×8×4 (12)")
    assert table["spacing as read, mm"] == ("2 × 2 × 2", "2×2×2 (12)")
    assert table["orientation as read"] == ("RAS", "RAS (12)")
    assert table["age"] == ("20–31", "median 25.5; none missing")
    assert table["sex"] == ("2 values", "F (6), M (6); none missing")
    assert "9 train and 3 held out scans" in found.pictures[1][0]


def test_without_anything_odd_it_says_so(tmp_path: Path) -> None:
    found = sections(published(tmp_path / "volumes", ["a", "b", "c"]))
    assert found["Data: warnings"].text.startswith("There are no warnings")
    assert found["Data: duplicates"].text.startswith("There are no duplicates")
    assert found["Data: rejections"].text == "No scan was rejected: all 3 that were found are used."
    assert not any(found[f"Data: {n}"].rows for n in ("warnings", "duplicates", "rejections"))


@pytest.mark.parametrize("more", [0, 7])
def test_long_tables_are_cut_and_say_where_the_rest_is(tmp_path: Path, more: int) -> None:
    count = MOST_ROWS + more
    names = [f"{index:03d}" for index in range(count)]
    near = [Pair("000", name, "near-duplicate", 0.9, False) for name in names[1:]]
    folder = published(
        tmp_path / "volumes", names,
        doubts=[Doubt(name, "clipped", "much") for name in names],
        pairs=[*near, Pair("001", "004", "near-duplicate", 0.8, True)],
        rejections=[Rejection(name, ("constant", "not-3d")[name > "030"], "r") for name in names],
    )  # fmt: skip
    found = sections(folder)
    for name, file in (("warnings", WARNINGS_TABLE), ("duplicates", DUPLICATES),
                       ("rejections", REJECTIONS)):  # fmt: skip
        section = found[f"Data: {name}"]
        assert len(section.rows) == MOST_ROWS
        assert (f"{more} more in data/volumes/{file}." in section.text) == (more > 0)
    assert found["Data: duplicates"].rows[0][:2] == ("001", "004")  # a leak is never cut off
    rejections = found["Data: rejections"]
    assert rejections.text.startswith(f"{count} of {2 * count} scans")
    assert sum(int(number) for _, number, _ in rejections.table) == count
    assert "all voxels have the same value" in [meaning for _, _, meaning in rejections.table]


def test_names_of_files_are_escaped(tmp_path: Path) -> None:
    name = '<script>alert("x")</script>.nii'
    folder = published(
        tmp_path / "volumes", [name, "other", "third"],
        doubts=[Doubt(name, "clipped", "<b>much</b>")],
        pairs=[Pair(name, "other", "same-voxels", 1.0, True)],
        rejections=[Rejection(f"{name}\t2", "constant", "<img src=x>")],
    )  # fmt: skip
    html = render("report", list(sections(folder).values()), {})
    assert not re.search(r"<script>alert|<b>|<img src=x", html)
    assert html.count("&lt;script&gt;alert(&#34;x&#34;)&lt;/script&gt;.nii") == 3


def test_at_most_four_hundred_are_chosen_the_doubtful_first() -> None:
    records = [record(index, f"{index:04d}", (2, 2, 2)) for index in range(1000)]
    doubtful = {f"{index:04d}" for index in (3, 500, 501, 502)}
    chosen = [one.source for one in choose(records[::-1], doubtful, 400)]
    assert len(set(chosen)) == len(chosen) == 400
    assert chosen == sorted(chosen)
    assert doubtful <= set(chosen)
    assert (chosen[0], chosen[-1]) == ("0000", "0999")
    gaps = np.diff([int(source) for source in chosen])
    assert gaps.max() <= 4  # evenly
    everything = {one.source for one in records}
    assert len(choose(records, everything, 400)) == 400
    assert len(choose(records[:30], doubtful, 400)) == 30


def test_even_choices_begin_at_the_first_and_end_at_the_last() -> None:
    assert evenly([], 3) == []
    assert evenly("abc", 3) == ["a", "b", "c"]
    assert evenly(range(101), 3) == [0, 50, 100]
    assert evenly(range(5), 0) == []


@pytest.mark.parametrize("name", [REJECTIONS, WARNINGS_TABLE, DUPLICATES, DATASET])
@pytest.mark.parametrize("damage", ["changed", "removed"])
def test_a_damaged_table_is_refused(tmp_path: Path, name: str, damage: str) -> None:
    folder = published(tmp_path / "volumes", ["a", "b"])
    if damage == "removed":
        (folder / name).unlink()
    else:
        (folder / name).write_bytes((folder / name).read_bytes() + b" ")
    with pytest.raises(IntegrityError, match=name):
        sections(folder)


def test_pictures_have_a_sheet_a_histogram_and_rejections_alone(tmp_path: Path) -> None:
    names = [f"file#{index:04d}" for index in range(450)]
    rejected = [Rejection("file#9", "constant", "every voxel is 0")]
    folder = published(tmp_path / "volumes", names, space=(5, 7), rejections=rejected)
    found = sections(folder)
    assert list(found) == ["Data", "Data: rejections"]
    assert not found["Data"].table
    (about, _), (of_panels, panels) = found["Data"].pictures
    assert about.startswith("400 of 450 scans, evenly chosen, by")
    assert of_panels == "Intensities in the field of view, of 64 train and 64 held out scans."
    width, height = Image.open(BytesIO(panels)).size
    assert width < 2 * height  # one panel
    assert found["Data: rejections"].rows == [("file#9", "constant", "every voxel is 0")]


def test_the_tables_are_those_that_ingest_writes(finished: Layout) -> None:
    folder = finished.output("volumes")
    found = sections(folder)
    dataset: dict[str, Any] = json.loads((folder / DATASET).read_text())
    assert found["Data"].table[0][1] == str(dataset["scans"]) == "20"
    with StringIO((folder / WARNINGS_TABLE).read_text()) as file:
        assert len(found["Data: warnings"].rows) == len(list(csv.reader(file, delimiter="\t"))) - 1


def test_it_is_the_first_of_the_report(finished: Layout) -> None:
    html = (finished.output("report") / "report.html").read_text()
    titles = re.findall(r"<h2>(.*?)</h2>", html)
    assert titles[:5] == [
        "Data", "Data: warnings", "Data: duplicates", "Data: rejections", "Reconstruction",
    ]  # fmt: skip
    assert re.search(r"\d+ of 20 scans, by their names", html)
