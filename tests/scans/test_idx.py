import gzip
import hashlib
import os
import struct
from pathlib import Path

import numpy as np
import pytest

from vqmri.errors import InputError
from vqmri.scans import idx

FILES = {
    "train_images": "train-images.gz",
    "train_labels": "train-labels.gz",
    "test_images": "test-images.gz",
    "test_labels": "test-labels.gz",
}


def values(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


def header(*shape: int) -> bytes:
    return struct.pack(f">HBB{len(shape)}I", 0, 8, len(shape), *shape)


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Six training and three test images of 5 rows and 4 columns."""
    for part, count in (("train", 6), ("test", 3)):
        idx.write(tmp_path / FILES[f"{part}_images"], values(count, 5, 4))
        idx.write(tmp_path / FILES[f"{part}_labels"], np.arange(count, dtype=np.uint8))
    return tmp_path


@pytest.mark.parametrize("shape", [(7,), (3, 5, 4), (2, 5, 4, 3)])
def test_what_was_written_is_read(tmp_path: Path, shape: tuple[int, ...]) -> None:
    idx.write(tmp_path / "a.gz", values(*shape))
    assert np.array_equal(idx.load(tmp_path / "a.gz"), values(*shape))


def test_the_bytes_are_those_of_the_format(tmp_path: Path) -> None:
    data = values(3, 5, 4)
    idx.write(tmp_path / "a.gz", data)
    assert gzip.decompress((tmp_path / "a.gz").read_bytes()) == header(3, 5, 4) + data.tobytes()


def test_equal_values_give_equal_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    idx.write(tmp_path / "one.gz", values(3, 5, 4))
    monkeypatch.setattr("time.time", lambda: 1e9)
    idx.write(tmp_path / "two.gz", values(3, 5, 4))
    assert (tmp_path / "one.gz").read_bytes() == (tmp_path / "two.gz").read_bytes()


def test_a_plain_file_is_read_whatever_its_name(tmp_path: Path) -> None:
    (tmp_path / "a.gz").write_bytes(header(3, 5, 4) + values(3, 5, 4).tobytes())
    assert np.array_equal(idx.load(tmp_path / "a.gz"), values(3, 5, 4))


def test_a_file_that_changed_is_read_again(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(header(2) + b"\x01\x02")
    assert idx.load(path).tolist() == [1, 2]
    path.write_bytes(header(2) + b"\x03\x04")
    os.utime(path, ns=(0, 0))
    assert idx.load(path).tolist() == [3, 4]


def test_images_of_the_test_files_are_held_out_and_labels_are_text(raw: Path) -> None:
    found = idx.find(raw, files=FILES, covariate="digit")
    assert [c.split for c in found] == ["train"] * 6 + ["held_out"] * 3
    assert [c.covariates["digit"] for c in found] == [*"012345", *"012"]
    assert found[5].source == found[5].subject == "train-images/00005"
    assert found[8].source == "test-images/00002"
    assert len({c.subject for c in found}) == 9


def test_an_image_keeps_its_rows_and_columns(raw: Path) -> None:
    found = idx.find(raw, files=FILES, covariate="digit")
    for candidate, expected in ((found[2], values(6, 5, 4)[2]), (found[7], values(3, 5, 4)[1])):
        volume, sha256 = idx.read(raw, candidate, files=FILES)
        assert volume.data.dtype == np.float32
        assert volume.data.shape == (1, 5, 4)
        assert np.allclose(volume.data[0], expected / 255)
        assert sha256 == hashlib.sha256(expected.tobytes()).hexdigest()
        assert volume.affine is None
        assert volume.spacing == ()


def test_colours_come_first(raw: Path) -> None:
    data = values(6, 5, 4, 3)
    idx.write(raw / FILES["train_images"], data)
    idx.write(raw / FILES["test_images"], values(3, 5, 4, 3))
    assert idx.num_channels(raw, files=FILES) == 3
    found = idx.find(raw, files=FILES, covariate="digit")
    volume, _ = idx.read(raw, found[4], files=FILES)
    assert np.allclose(volume.data, np.moveaxis(data[4], -1, 0) / 255)


GOOD = header(3, 5, 4) + values(3, 5, 4).tobytes()
PACKED = gzip.compress(GOOD, mtime=0)
BAD = {
    "empty": (b"", "begins with nothing"),
    "other magic": (b"\x00\x01" + GOOD[2:], "no idx file"),
    "floats": (b"\x00\x00\x0d" + GOOD[3:], "begins with 00 00 0d 03"),
    "no axes": (b"\x00\x00\x08\x00", "no idx file"),
    "header cut": (GOOD[:9], "ends within its header"),
    "cut": (GOOD[:-1], "60 bytes, and it holds 59"),
    "too much": (GOOD + b"x", "and it holds more"),
    "huge": (header(2**31, 2**31) + b"x", "more than"),
    "large and not there": (header(2**16, 2**15) + b"x", "it holds 1"),
    "gzip cut": (PACKED[:-9], "cannot be read"),
    "gzip checksum": (PACKED[:-8] + b"\x00\x00\x00\x00" + PACKED[-4:], "cannot be read"),
    "gzip junk": (PACKED[:2] + b"junk" * 20, "cannot be read"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_damaged_file_is_named_with_its_fault(tmp_path: Path, name: str) -> None:
    data, fault = BAD[name]
    (tmp_path / "a").write_bytes(data)
    with pytest.raises(InputError) as caught:
        idx.load(tmp_path / "a")
    assert fault in str(caught.value)
    assert str(tmp_path / "a") in str(caught.value)


def test_a_missing_file_is_named(raw: Path) -> None:
    (raw / FILES["test_labels"]).unlink()
    with pytest.raises(InputError, match=r"test-labels\.gz cannot be read"):
        idx.find(raw, files=FILES, covariate="digit")


def test_labels_of_other_images_are_refused(raw: Path) -> None:
    idx.write(raw / FILES["train_labels"], np.zeros(7, dtype=np.uint8))
    with pytest.raises(InputError, match=r"shape \(7,\).*each of the 6 images"):
        idx.find(raw, files=FILES, covariate="digit")


@pytest.mark.parametrize("shape", [(6,), (6, 5), (6, 5, 4, 2), (0, 5, 4)])
def test_what_holds_no_images_is_refused(raw: Path, shape: tuple[int, ...]) -> None:
    idx.write(raw / FILES["train_images"], values(*shape))
    with pytest.raises(InputError, match="images are"):
        idx.find(raw, files=FILES, covariate="digit")


def test_grey_and_coloured_images_do_not_belong_together(raw: Path) -> None:
    idx.write(raw / FILES["test_images"], values(3, 5, 4, 3))
    with pytest.raises(InputError, match="as many channels"):
        idx.find(raw, files=FILES, covariate="digit")
