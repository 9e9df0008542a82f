import hashlib
import random
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vqmri.errors import InputError
from vqmri.scans import images
from vqmri.scans.check import Refused
from vqmri.scans.volume import Candidate


def pixels(seed: int, rows: int = 6, columns: int = 9) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (rows, columns, 3), dtype=np.uint8)


def save(path: Path, data: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(data).save(path)


def find(raw: Path, images_: str, test: str | None = None) -> list[Candidate]:
    return images.find(raw, images=images_, test_images=test, covariate="animal")


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    for number, name in enumerate(("train/cat/0.png", "train/cat/1.JPG", "train/dog/0.png",
                                   "test/dog/0.jpeg")):  # fmt: skip
        save(tmp_path / name, pixels(number))
    (tmp_path / "train/dog/notes.txt").touch()
    return tmp_path


def binary(path: Path, labels: list[int]) -> np.ndarray:
    """A file of CIFAR-10's format; returns its pixels, (record, row, column, colour)."""
    data = np.random.default_rng(1).integers(0, 256, (len(labels), 32, 32, 3), dtype=np.uint8)
    planes = np.moveaxis(data, -1, 1).reshape(len(labels), -1)
    records = np.concatenate([np.array(labels, dtype=np.uint8)[:, None], planes], axis=1)
    path.write_bytes(records.tobytes())
    return data


def test_the_folder_of_a_picture_is_its_class(folders: Path) -> None:
    found = find(folders, "train/*/*", "test/*/*")
    assert [(c.source, c.covariates, c.split) for c in found] == [
        ("train/cat/0.png", {"animal": "cat"}, "train"),
        ("train/cat/1.JPG", {"animal": "cat"}, "train"),
        ("train/dog/0.png", {"animal": "dog"}, "train"),
        ("test/dog/0.jpeg", {"animal": "dog"}, "held_out"),
    ]
    assert all(c.subject == c.source for c in found)
    assert images.files(folders, found) == [c.source for c in found]


def test_without_a_test_part_there_is_no_side_yet(folders: Path) -> None:
    assert {c.split for c in find(folders, "**/*.png")} == {""}


def test_a_png_is_read_in_rgb_or_grey(folders: Path) -> None:
    candidate = find(folders, "train/*/*")[0]
    volume, sha256 = images.read(folders, candidate, channels=3)
    assert np.allclose(volume.data, np.moveaxis(pixels(0), -1, 0) / 255)
    data = (folders / candidate.source).read_bytes()
    assert sha256 == hashlib.sha256(data).hexdigest()
    grey, _ = images.read(folders, candidate, channels=1)
    expected = np.asarray(Image.fromarray(pixels(0)).convert("L"))
    assert np.allclose(grey.data[0], expected / 255)


def test_records_of_a_binary_file(tmp_path: Path) -> None:
    data = binary(tmp_path / "data_batch_1.bin", [2, 0, 1])
    binary(tmp_path / "test_batch.bin", [1])
    (tmp_path / "batches.meta.txt").write_text("airplane\nautomobile\nbird\n\n")
    found = find(tmp_path, "data_batch_*.bin", "test_batch.bin")
    assert [(c.source, c.covariates["animal"], c.split) for c in found] == [
        ("data_batch_1.bin/00000", "bird", "train"),
        ("data_batch_1.bin/00001", "airplane", "train"),
        ("data_batch_1.bin/00002", "automobile", "train"),
        ("test_batch.bin/00000", "automobile", "held_out"),
    ]
    volume, _ = images.read(tmp_path, found[1], channels=3)
    assert np.allclose(volume.data, np.moveaxis(data[1], -1, 0) / 255)
    grey, _ = images.read(tmp_path, found[1], channels=1)
    expected = np.asarray(Image.fromarray(data[1]).convert("L"))
    assert np.allclose(grey.data[0], expected / 255)
    names = ["data_batch_1.bin", "test_batch.bin", "batches.meta.txt"]
    assert images.files(tmp_path, found) == names


def test_classes_without_names_are_numbers(tmp_path: Path) -> None:
    binary(tmp_path / "a.bin", [7, 0])
    found = find(tmp_path, "*.bin")
    assert [c.covariates["animal"] for c in found] == ["7", "0"]
    assert images.files(tmp_path, found) == ["a.bin"]


@pytest.mark.parametrize("change", [b"", b"x"])
def test_a_binary_file_of_another_length_is_refused(tmp_path: Path, change: bytes) -> None:
    path = tmp_path / "a.bin"
    binary(path, [1, 2])
    path.write_bytes(path.read_bytes() + b"x" if change else b"")
    with pytest.raises(InputError, match="no multiple of 3073"):
        find(tmp_path, "*.bin")


def test_a_class_without_a_name_is_refused(tmp_path: Path) -> None:
    binary(tmp_path / "a.bin", [1, 2])
    (tmp_path / "batches.meta.txt").write_text("cat\ndog\n")
    with pytest.raises(InputError, match=r"record of class 2, .* names 2 classes"):
        find(tmp_path, "*.bin")


def test_globs_that_match_nothing_or_the_same(folders: Path) -> None:
    with pytest.raises(InputError, match="nothing that matches 'none/"):
        find(folders, "none/*")
    with pytest.raises(InputError, match=r"nothing that matches .train/dog/notes\.txt."):
        find(folders, "train/*/*", "train/dog/notes.txt")
    with pytest.raises(InputError, match="both sides"):
        find(folders, "**/*", "test/*/*")


def test_what_is_hidden_is_no_class_unless_the_glob_names_it(folders: Path) -> None:
    for name in ("train/.ipynb_checkpoints/0.png", "train/cat/._0.png"):
        save(folders / name, pixels(0))
    for glob in ("train/*/*", "train/**/*.png"):
        assert {c.covariates["animal"] for c in find(folders, glob)} == {"cat", "dog"}
        assert all("._" not in c.source for c in find(folders, glob))
    assert len(find(folders, "train/.ipynb_checkpoints/*")) == 1


def test_a_picture_in_no_folder_has_no_class(tmp_path: Path) -> None:
    save(tmp_path / "a.png", pixels(0))
    with pytest.raises(InputError, match="no folder"):
        find(tmp_path, "*.png")


def refusal(path: Path, data: bytes) -> str:
    path.write_bytes(data)
    with pytest.raises(Refused) as caught:
        images.read(path.parent, Candidate(path.name, path.name, {}), channels=3)
    return caught.value.code


@pytest.mark.parametrize("name", ["a.png", "a.jpg"])
def test_a_picture_cut_short_is_refused(tmp_path: Path, name: str) -> None:
    save(tmp_path / name, pixels(0))
    whole = (tmp_path / name).read_bytes()
    for length in (0, 1, 10, 40, len(whole) // 2, len(whole) - 30):
        assert refusal(tmp_path / name, whole[:length]) == "unreadable"


def test_a_flipped_bit_in_a_png_is_never_silent(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    save(path, pixels(0))
    whole = path.read_bytes()
    for position in random.Random(0).sample(range(len(whole) - 12), 40):  # IEND ends the file
        damaged = bytearray(whole)
        damaged[position] ^= 1 << position % 8
        assert refusal(path, bytes(damaged)) in ("unreadable", "too-large")


def test_what_is_no_picture_is_refused(tmp_path: Path) -> None:
    assert refusal(tmp_path / "a.png", b"version https://git-lfs.github.com/spec/v1\n") == (
        "unreadable"
    )
    Image.fromarray(pixels(0)).save(tmp_path / "b.bmp")  # a kind that is not asked for
    assert refusal(tmp_path / "a.png", (tmp_path / "b.bmp").read_bytes()) == "unreadable"
    (tmp_path / "c.png").mkdir()
    with pytest.raises(Refused, match="unreadable"):
        images.read(tmp_path, Candidate("c.png", "c", {}), channels=1)


def test_a_picture_that_is_gone_stops_the_run(folders: Path) -> None:
    found = find(folders, "train/*/*")
    (folders / found[0].source).unlink()
    with pytest.raises(FileNotFoundError):
        images.read(folders, found[0], channels=1)


def test_sixteen_bits_are_refused_and_not_clipped(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 4), 40000, dtype=np.uint16)).save(tmp_path / "a.png")
    assert refusal(tmp_path / "a.png", (tmp_path / "a.png").read_bytes()) == "not-8-bit"


@pytest.mark.parametrize("side", [9000, 12000, 30000])
def test_a_picture_of_too_many_pixels_is_refused_by_its_header(tmp_path: Path, side: int) -> None:
    """Before it is decoded: 9000² is more than we take, the others are more than Pillow does."""
    save(tmp_path / "a.png", pixels(0))
    raw = bytearray((tmp_path / "a.png").read_bytes())
    raw[16:24] = struct.pack(">II", side, side)
    raw[29:33] = struct.pack(">I", zlib.crc32(bytes(raw[12:29])))
    assert refusal(tmp_path / "a.png", bytes(raw)) == "too-large"
