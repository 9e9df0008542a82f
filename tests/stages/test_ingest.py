import csv
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from nibabel.affines import from_matvec
from nibabel.eulerangles import euler2mat
from PIL import Image

from tests.conftest import REPO, tiny_values
from vqmri.errors import InputError
from vqmri.layout import Layout
from vqmri.params import Params
from vqmri.scans import idx
from vqmri.scans.store import VolumeStore
from vqmri.scans.volume import Channel
from vqmri.stages.ingest import ingest

MNIST = REPO.parent / "shared" / "data" / "mnist"


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


def test_scans_of_one_person_are_said_to_be(tmp_path: Path) -> None:
    values = tiny_values()
    values["ingest"] |= {"raw": "raw", "source": {"kind": "nifti", "images": "*.nii.gz"}}
    for number in range(3):
        name = f"raw/sub-7_run-{number}.nii.gz"
        write(tmp_path / name, np.random.default_rng(number).random((14, 26, 16)))
    with pytest.raises(
        InputError, match=r"^all 3 scans are of one subject, '7'; .*name a table"
    ) as told:
        ingest(Params.model_validate(values), Layout(tmp_path))
    assert "mend" not in str(told.value)
    assert "rejected" not in str(told.value)
    (tmp_path / "raw/bad.nii.gz").touch()
    with pytest.raises(
        InputError, match=r"^1 of 4 .* rejected, and those left \(3\) are of one subj.*mend these"
    ):
        ingest(Params.model_validate(values), Layout(tmp_path))


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


def with_labels(root: Path) -> Layout:
    """Four scans with a T2w on a finer grid and a label map; of two more, something is amiss."""
    random = np.random.default_rng(0)
    coarse, fine = np.diag([10.0, 10.0, 10.0, 1.0]), np.diag([5.0, 5.0, 5.0, 1.0])
    turn = from_matvec(euler2mat(0.2, 0.1, 0.3))
    for person in range(6):
        folder = root / f"raw/sub-{person}/anat"
        folder.mkdir(parents=True)
        label = random.choice([0, 4, 1000], (14, 26, 16))
        if person == 4:
            label[0, 0, 0] = 3
        files = {
            "T1w": (random.random((14, 26, 16)).astype(np.float32), coarse),
            "T2w": (random.random((28, 52, 32)).astype(np.float32), fine),
            "dseg": (label.astype(np.int16), coarse),
        }
        if person == 5:
            del files["T2w"]
        for suffix, (data, affine) in files.items():
            image: Any = nib.Nifti1Image(data, turn @ affine if person == 3 else affine)
            nib.save(image, folder / f"sub-{person}_{suffix}.nii.gz")
    return Layout(root)


def test_modalities_and_the_label_map_are_channels(tmp_path: Path) -> None:
    data = with_labels(tmp_path)
    values = tiny_values()
    values["ingest"] |= {
        "raw": "raw",
        "source": {
            "kind": "nifti",
            "images": "**/*_T1w.nii.gz",
            "modalities": {"T2w": "**/*_T2w.nii.gz"},
            "labels": "**/*_dseg.nii.gz",
            "label_values": [0, 1000, 4],
        },
    }
    metrics = ingest(Params.model_validate(values), data)
    assert (metrics["volumes"], metrics["rejected"]) == (4, 2)
    rejections = (data.output("volumes") / "rejections.tsv").read_text()
    assert "sub-4_T1w.nii.gz\tlabel-values\t[3.0] not among" in rejections
    assert "sub-5_T1w.nii.gz\tmodality-missing\tno file of T2w" in rejections
    store = VolumeStore(data.output("volumes"))
    assert store.channels == (Channel("image"), Channel("T2w"), Channel("dseg", (0, 1000, 4)))
    assert store.num_classes == 3
    assert store.shape == (3, 16, 24, 16)
    volumes = store.read(store.records)
    assert set(np.unique(volumes[:, 2])) == {0, 1, 2}  # of the turned scan too
    assert np.allclose(volumes[:, :2].max(axis=(2, 3, 4)), 1)
    assert np.all(volumes[:3, :, 0] == 0)  # padding: 0, and background
    raw: Any = nib.load(data.root / f"raw/{store.records[0].label}")
    expected = np.asarray(raw.dataobj)[:, 1:25]  # 14 padded to 16, 26 cropped to 24
    assert np.array_equal(np.array([0, 1000, 4])[volumes[0, 2, 1:15].astype(int)], expected)


def test_without_modalities_and_label_values_the_volumes_are_what_they_were(tmp_path: Path) -> None:
    data = project(tmp_path, good=4)
    ingest(params(), data)
    store = VolumeStore(data.output("volumes"))
    assert store.channels == (Channel("image"),)
    assert store.num_classes == 0
    assert store.orientation == "RAS"


def pictures(source: dict[str, Any], shape: list[int], **changes: Any) -> Params:
    values = tiny_values()
    for name in ("spacing", "percentiles", "held_out"):
        del values["ingest"][name]
    values["ingest"] |= {"raw": "raw", "source": source, "shape": shape, **changes}
    return Params.model_validate(values)


MNIST_FILES = {
    "train_images": "train-images-idx3-ubyte.gz",
    "train_labels": "train-labels-idx1-ubyte.gz",
    "test_images": "t10k-images-idx3-ubyte.gz",
    "test_labels": "t10k-labels-idx1-ubyte.gz",
}


def write_idx(raw: Path, train: np.ndarray, test: np.ndarray) -> None:
    for part, images in (("train", train), ("test", test)):
        idx.write(raw / MNIST_FILES[f"{part}_images"], images)
        labels = (np.arange(len(images)) % 10).astype(np.uint8)
        idx.write(raw / MNIST_FILES[f"{part}_labels"], labels)


def test_digits_keep_their_own_split_and_their_pixels(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    train, test = (random.integers(0, 256, (n, 28, 28), dtype=np.uint8) for n in (4090, 12))
    write_idx(tmp_path / "raw", train, test)
    data = Layout(tmp_path)
    settings = pictures({"kind": "idx", **MNIST_FILES, "covariate": "digit"}, [28, 28])
    metrics = ingest(settings, data)
    assert metrics == {
        "volumes": 4102, "rejected": 0, "train_volumes": 4090, "held_out_volumes": 12,
    }  # fmt: skip
    store = VolumeStore(data.output("volumes"))
    assert (store.shape, store.spacing, store.orientation) == ((1, 28, 28), (), None)
    assert store.channels == (Channel("image"),)
    found = store.read(store.of_split("held_out"))
    assert np.array_equal(found[:, 0], test.astype(np.float32) / 255)
    assert np.array_equal(store.read(store.of_split("train"))[:, 0] * 255, train.astype(np.float32))
    record = store.of_split("held_out")[3]
    assert record.covariates == {"digit": "3"}
    assert record.box == ((0, 28), (0, 28))
    assert (record.affine, record.normalised_affine) == ([], [])
    assert record.subject == "test-images/00003"


def test_pictures_of_another_size_are_made_to_fit(tmp_path: Path) -> None:
    images = np.random.default_rng(0).integers(0, 256, (4, 20, 30, 3), dtype=np.uint8)
    write_idx(tmp_path / "raw", images, images)
    data = Layout(tmp_path)
    ingest(pictures({"kind": "idx", **MNIST_FILES, "covariate": "digit"}, [16, 16]), data)
    store = VolumeStore(data.output("volumes"))
    assert store.shape == (3, 16, 16)
    assert [channel.name for channel in store.channels] == ["red", "green", "blue"]
    assert store.records[0].shape == [20, 30]
    assert store.read(store.records).max() <= 1


def test_a_damaged_picture_becomes_a_row(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    for number in range(10):
        path = tmp_path / f"raw/{'cat' if number % 2 else 'dog'}/{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(path)
    damaged = tmp_path / "raw/cat/3.png"
    damaged.write_bytes(damaged.read_bytes()[:-40])
    data = Layout(tmp_path)
    source = {"kind": "images", "images": "*/*.png", "channels": 1, "covariate": "animal"}
    metrics = ingest(pictures(source, [8, 8], held_out=0.3), data)
    assert metrics == {"volumes": 9, "rejected": 1, "train_volumes": 6, "held_out_volumes": 3}
    assert "cat/3.png\tunreadable" in (data.output("volumes") / "rejections.tsv").read_text()
    store = VolumeStore(data.output("volumes"))
    assert np.isfinite(store.read(store.records)).all()
    assert {r.covariates["animal"] for r in store.records} == {"cat", "dog"}


def test_a_source_whose_test_part_is_lost_is_an_error(tmp_path: Path) -> None:
    for name in ("train/a/0.png", "train/a/1.png", "test/a/0.png"):
        (tmp_path / "raw" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), 7).save(tmp_path / "raw" / name)
    (tmp_path / "raw/test/a/0.png").write_bytes(b"")
    source = {
        "kind": "images", "images": "train/*/*.png", "test_images": "test/*/*.png",
        "channels": 1, "covariate": "class",
    }  # fmt: skip
    with pytest.raises(InputError, match="one to train on and one to hold out"):
        ingest(pictures(source, [8, 8]), Layout(tmp_path))


@pytest.mark.skipif(not MNIST.is_dir(), reason="the shared data are not here")
def test_a_part_of_mnist(tmp_path: Path) -> None:
    """Its own files of labels and images belong together; a few images are enough here."""
    test = idx.load(MNIST / MNIST_FILES["test_images"])
    labels = idx.load(MNIST / MNIST_FILES["test_labels"])
    for part in ("train", "test"):
        idx.write(tmp_path / "raw" / MNIST_FILES[f"{part}_images"], test[:300])
        idx.write(tmp_path / "raw" / MNIST_FILES[f"{part}_labels"], labels[:300])
    data = Layout(tmp_path)
    ingest(pictures({"kind": "idx", **MNIST_FILES, "covariate": "digit"}, [28, 28]), data)
    store = VolumeStore(data.output("volumes"))
    volumes = store.read(store.of_split("held_out"))
    assert np.array_equal(volumes[:, 0], test[:300].astype(np.float32) / 255)
    assert [r.covariates["digit"] for r in store.records[:5]] == ["7", "2", "1", "0", "4"]
    ink = {d: np.mean([v.mean() for v, r in zip(volumes, store.of_split("held_out"), strict=True)
                       if r.covariates["digit"] == d]) for d in "01"}  # fmt: skip
    assert ink["0"] > 1.5 * ink["1"]
