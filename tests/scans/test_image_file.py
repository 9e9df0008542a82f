"""Pairs of files and FreeSurfer's images; what NIfTI in one file goes through is in test_nifti."""

import errno
import gzip
import hashlib
import os
import shutil
import unicodedata
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from nibabel.freesurfer import mghformat

from tests.scans.test_nifti import (
    AFFINE,
    RGB,
    SHAPE,
    bomb,
    find,
    in_bytes,
    little_memory,
    nifti_header,
    refusal,
    refusal_of,
    scan_bytes,
    voxels,
    with_value,
    write_table,
)
from vqmri.errors import InputError
from vqmri.scans import image_file, modalities, nifti
from vqmri.scans.check import Refused
from vqmri.scans.volume import Candidate

PAIRS = [(".hdr", ".img"), (".hdr.gz", ".img.gz"), (".hdr", ".img.gz"), (".hdr.gz", ".img")]


def pair_header(shape: tuple[int, ...] = SHAPE, dtype: Any = np.float32, **options: Any) -> Any:
    header = nifti_header(shape, dtype, **options)
    header["vox_offset"] = 0
    header["magic"] = header.pair_magic
    return header


def packed(data: bytes, name: str) -> bytes:
    return gzip.compress(data, mtime=0) if name.endswith((".gz", ".mgz")) else data


def write_pair(
    folder: Path,
    data: np.ndarray | bytes,
    header: Any | None = None,
    suffixes: tuple[str, str] = (".hdr", ".img"),
    name: str = "scan",
) -> Path:
    header = header or pair_header()
    raw = data if isinstance(data, bytes) else data.astype(header.get_data_dtype()).tobytes("F")
    first, second = (folder / f"{name}{suffix}" for suffix in suffixes)
    first.write_bytes(packed(bytes(header.binaryblock) + bytes(4), first.name))
    second.write_bytes(packed(raw, second.name))
    return first


@pytest.mark.parametrize("suffixes", PAIRS)
@pytest.mark.parametrize("second", [False, True], ids=["nifti1", "nifti2"])
@pytest.mark.parametrize("endian", ["<", ">"])
def test_a_pair_is_read_by_either_name(
    tmp_path: Path, suffixes: tuple[str, str], second: bool, endian: str
) -> None:
    header = pair_header(second=second, endian=endian)
    path = write_pair(tmp_path, voxels(), header, suffixes)
    other = tmp_path / f"scan{suffixes[1]}"
    volume, sha256 = nifti.read(path)
    assert np.array_equal(volume.data[0], voxels())
    assert volume.affine is not None
    assert np.array_equal(volume.affine, AFFINE)
    assert sha256 == hashlib.sha256(path.read_bytes() + other.read_bytes()).hexdigest()
    assert image_file.of_file(other) == path
    assert image_file.parts(path) == [path, other]
    assert image_file.stem(path) == image_file.stem(other) == "scan"


def test_nibabel_reads_the_same_of_a_pair(tmp_path: Path) -> None:
    header = pair_header(dtype=np.int16)
    header["scl_slope"], header["scl_inter"] = 0.5, -3
    path = write_pair(tmp_path, np.arange(210).reshape(SHAPE), header)
    volume, _ = nifti.read(path)
    image: Any = nib.load(path)
    assert np.array_equal(volume.data[0], image.get_fdata())
    assert volume.affine is not None
    assert np.array_equal(volume.affine, image.affine)


def test_a_pair_has_both_affines_too(tmp_path: Path) -> None:
    other = AFFINE + np.eye(4, k=3) * 5
    header = pair_header()
    header.set_qform(other, code=2)
    volume, _ = nifti.read(write_pair(tmp_path, voxels(), header))
    assert volume.affine is not None
    assert volume.qform is not None
    assert np.array_equal(volume.affine, AFFINE)
    assert np.allclose(volume.qform, other, atol=1e-5)


def test_one_half_of_a_pair_is_refused(tmp_path: Path) -> None:
    path = write_pair(tmp_path, voxels())
    shutil.move(path, tmp_path / "other.hdr")
    assert refusal(tmp_path / "other.hdr") == "unreadable"
    assert refusal(tmp_path / "scan.img") == "unreadable"
    assert [c.source for c in find(tmp_path, images="*")] == ["other.hdr", "scan.img"]


def analyze(**options: Any) -> Any:
    header: Any = nib.AnalyzeHeader(**options)
    header.set_data_dtype(np.int16)
    header.set_data_shape(SHAPE)
    return header


def without_affine() -> Any:
    header = pair_header()
    header.set_sform(AFFINE, code=0)
    return header


def with_field(name: str, value: Any) -> Any:
    header = pair_header()
    header[name] = value
    return header


@pytest.mark.parametrize(
    ("header", "data", "code"),
    [
        (analyze(), bytes(420), "no-affine"),
        (analyze(endianness=">"), bytes(420), "no-affine"),
        (without_affine(), voxels(), "no-affine"),
        (with_field("magic", b"n+1"), voxels(), "unreadable"),
        (with_field("vox_offset", -16), voxels(), "unreadable"),
        (with_field("vox_offset", 16), voxels(), "unreadable"),
        (pair_header((*SHAPE, 2)), voxels((*SHAPE, 2)), "not-3d"),
        (pair_header(dtype=np.complex64), voxels(), "not-real"),
        (pair_header(dtype=RGB), bytes(630), "not-real"),
        (pair_header(), with_value(np.nan), "not-finite"),
        (pair_header(), np.full(SHAPE, 3.0), "constant"),
        (pair_header(), bytes(839), "unreadable"),
        (pair_header((32767, 32767, 32767), np.uint8), bytes(840), "too-large"),
        (pair_header((1100, 1100, 1100), np.uint8), bytes(840), "unreadable"),
    ],
)
@pytest.mark.parametrize("suffixes", PAIRS)
def test_a_bad_pair_is_refused(
    tmp_path: Path, suffixes: tuple[str, str], header: Any, data: Any, code: str
) -> None:
    with little_memory(2):
        assert refusal(write_pair(tmp_path, data, header, suffixes)) == code


def test_a_qform_of_no_rotation_is_refused(tmp_path: Path) -> None:
    header = nifti_header()
    header.set_sform(None, code=0)
    header["qform_code"], header["quatern_b"], header["quatern_c"] = 1, 1, 1
    assert refusal_of(tmp_path, in_bytes(header, voxels())) == "bad-affine"


@pytest.mark.parametrize(
    ("field", "value"),
    [("vox_offset", 0), ("magic", b"ni1")],
)
def test_a_single_file_whose_header_is_that_of_a_pair_is_refused(
    tmp_path: Path, field: str, value: Any
) -> None:
    """nibabel would take the header itself for voxels."""
    header = nifti_header()
    header[field] = value
    assert refusal_of(tmp_path, in_bytes(header, voxels())) == "unreadable"


def test_the_checksum_of_either_half_counts(tmp_path: Path) -> None:
    for suffix in (".hdr.gz", ".img.gz"):
        path = write_pair(tmp_path, voxels(), None, (".hdr.gz", ".img.gz"))
        raw = bytearray((tmp_path / f"scan{suffix}").read_bytes())
        raw[-6] ^= 1
        (tmp_path / f"scan{suffix}").write_bytes(raw)
        assert refusal(path) == "unreadable"


@pytest.mark.parametrize("half", [".hdr.gz", ".img.gz"])
def test_a_bomb_in_either_half_is_not_unpacked(tmp_path: Path, half: str) -> None:
    path = write_pair(tmp_path, voxels(), None, (".hdr.gz", ".img.gz"))
    (tmp_path / f"scan{half}").write_bytes(bomb(pair_header(), 256))
    with little_memory(16):
        assert refusal(path) == "unreadable"


def mgh_bytes(
    data: np.ndarray, affine: np.ndarray = AFFINE, flag: int = 1, tail: bytes = bytes(20)
) -> bytes:
    header: Any = mghformat.MGHImage(data, affine).header
    raw = bytearray(header.binaryblock[: mghformat.header_dtype.itemsize].ljust(284, b"\0"))
    raw[28:30] = flag.to_bytes(2, "big", signed=True)
    return bytes(raw) + data.astype(header.get_data_dtype()).tobytes("F") + tail


@pytest.mark.parametrize("name", ["scan.mgh", "scan.mgz", "scan.mgh.gz"])
@pytest.mark.parametrize("dtype", ["uint8", "int16", "int32", "float32"])
@pytest.mark.parametrize("tail", [b"", bytes(20), bytes(5000)], ids=len)
def test_freesurfers_images_are_read(tmp_path: Path, name: str, dtype: str, tail: bytes) -> None:
    data = voxels().astype(dtype)
    raw = packed(mgh_bytes(data, tail=tail), name)
    (tmp_path / name).write_bytes(raw)
    volume, sha256 = nifti.read(tmp_path / name)
    assert np.array_equal(volume.data[0], data)
    assert volume.affine is not None
    assert np.allclose(volume.affine, AFFINE, atol=1e-4)
    assert volume.qform is None
    assert sha256 == hashlib.sha256(raw).hexdigest()


MGH = mgh_bytes(voxels())


def with_bytes(position: int, value: bytes) -> bytes:
    return MGH[:position] + value + MGH[position + len(value) :]


@pytest.mark.parametrize("name", ["scan.mgh", "scan.mgz"])
@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "unreadable"),
        (MGH[:200], "unreadable"),
        (MGH[:284], "unreadable"),
        (MGH[: 284 + 839], "unreadable"),
        (with_bytes(0, bytes(4)), "unreadable"),
        (with_bytes(20, b"\x7f"), "unreadable"),
        (mgh_bytes(voxels((*SHAPE, 2))), "not-3d"),
        (with_bytes(4, bytes(4)), "not-3d"),
        (with_bytes(4, b"\xff"), "not-3d"),
        (mgh_bytes(voxels(), flag=0), "no-affine"),
        (mgh_bytes(voxels(), flag=-1), "no-affine"),
        (with_bytes(30, bytes(4)), "bad-affine"),
        (with_bytes(30, b"\x7f\xc0\0\0"), "bad-affine"),
        (mgh_bytes(with_value(np.nan)), "not-finite"),
        (mgh_bytes(voxels() * 0), "constant"),
        (with_bytes(4, b"\x7f\xff\xff\xff" * 3), "too-large"),
        (with_bytes(4, b"\0\0\4\0" * 3), "unreadable"),
        (scan_bytes(voxels()), "unreadable"),
    ],
)
def test_a_bad_image_of_freesurfer_is_refused(
    tmp_path: Path, name: str, data: bytes, code: str
) -> None:
    with little_memory(2):
        assert refusal_of(tmp_path, packed(data, name), name) == code


def test_what_is_no_file_is_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.nii")
    (tmp_path / "folder.nii").mkdir()
    (tmp_path / "loop.nii").symlink_to("loop.nii")
    (tmp_path / "zero.nii").symlink_to("/dev/zero")
    (tmp_path / "link.nii").symlink_to("nowhere.nii")  # as git-annex has what it did not fetch
    for name in ("pipe.nii", "folder.nii", "loop.nii", "zero.nii", "link.nii"):
        assert refusal(tmp_path / name) == "unreadable"


@pytest.mark.parametrize("name", ["absent.nii", "absent.hdr", "gone/absent.img"])
def test_a_file_that_is_gone_is_no_bad_scan(tmp_path: Path, name: str) -> None:
    with pytest.raises(FileNotFoundError, match="absent"):
        nifti.read(tmp_path / name)


@pytest.mark.parametrize(
    ("number", "blamed"),
    [(errno.EIO, True), (errno.ESTALE, True), (errno.ENOTCONN, True), (errno.EACCES, False)],
)
def test_only_what_the_file_is_to_blame_for_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, blamed: bool
) -> None:
    (tmp_path / "scan.nii.gz").write_bytes(gzip.compress(scan_bytes(voxels())))

    def failing(self: Any, buffer: Any) -> int:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(image_file._Hashed, "readinto", failing)
    with pytest.raises(OSError if blamed else Refused, match=r"scan\.nii|Permission") as caught:
        nifti.read(tmp_path / "scan.nii.gz")
    assert not blamed or (isinstance(caught.value, OSError) and caught.value.errno == number)


def test_a_file_much_longer_than_its_header_says_is_refused(tmp_path: Path) -> None:
    """As it is when gzipped, and so that no file is read that no memory could hold."""
    path = tmp_path / "scan.nii"
    path.write_bytes(scan_bytes(voxels()) + bytes(1000))
    nifti.read(path)
    with path.open("ab") as file:
        file.truncate(2**33)  # sparse
    with little_memory(4):
        assert refusal(path) == "unreadable"


def test_a_sheared_image_in_another_order_of_axes_is_read(tmp_path: Path) -> None:
    affine = np.array([[0, 0, 2.0, 5], [-1, 0.2, 0, 6], [0, -3, 0, 7], [0, 0, 0, 1]])
    header = nifti_header()
    header.set_sform(affine, code=2)
    (tmp_path / "scan.nii").write_bytes(in_bytes(header, voxels()))
    volume, _ = nifti.read(tmp_path / "scan.nii")
    assert volume.affine is not None
    assert np.allclose(volume.affine, affine)
    assert nib.aff2axcodes(volume.affine) == ("P", "I", "R")


def test_a_pair_is_one_scan_whatever_matches(tmp_path: Path) -> None:
    write_pair(tmp_path, voxels())
    (tmp_path / "brain.mgz").write_bytes(packed(MGH, "brain.mgz"))
    for images in ("scan.*", "*.img", "*.hdr"):
        assert [c.source for c in find(tmp_path, images=images)] == ["scan.hdr"]
    assert [c.source for c in find(tmp_path, images="*")] == ["brain.mgz", "scan.hdr"]
    assert nifti.files(tmp_path, ["brain.mgz", "scan.hdr"]) == ["brain.mgz", "scan.hdr", "scan.img"]


def test_in_bids_the_formats_may_differ(tmp_path: Path) -> None:
    for name in ("sub-1_T1w.mgz", "sub-1_T2w.hdr", "sub-1_T2w.img", "sub-1_dseg.nii.gz"):
        (tmp_path / name).touch()
    (scan,) = find(tmp_path, images="*_T1w.*", modalities={"T2w": "*_T2w.*"}, labels="*_dseg.*")
    assert (scan.source, scan.modalities, scan.label) == (
        "sub-1_T1w.mgz", ("sub-1_T2w.hdr",), "sub-1_dseg.nii.gz",
    )  # fmt: skip


def test_a_glob_that_leads_out_of_raw_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "raw").mkdir()
    (tmp_path / "scan.nii").write_bytes(scan_bytes(voxels()))
    for options in ({"images": "../*"}, {"images": "*", "labels": "../*"}):
        (tmp_path / "raw/a.nii").touch()
        with pytest.raises(InputError, match="leads out of"):
            find(tmp_path / "raw", **options)


def read(raw: Path, source: str, **options: Any) -> Any:
    candidate = Candidate(source, "1", {}, **options)
    return modalities.read(raw, candidate, names=["T2w"][: len(candidate.modalities)],
                           label_values=None)  # fmt: skip


def test_a_link_out_of_raw_is_refused(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    (raw / "in").mkdir(parents=True)
    (tmp_path / "out").mkdir()
    for folder in (raw / "in", tmp_path / "out"):
        (folder / "scan.nii").write_bytes(scan_bytes(voxels()))
        write_pair(folder, voxels(), name="pair")
    (raw / "outside.nii").symlink_to(tmp_path / "out/scan.nii")
    (raw / "linked").symlink_to(tmp_path / "out")
    (raw / "half.hdr").symlink_to("in/pair.hdr")
    (raw / "half.img").symlink_to(tmp_path / "out/pair.img")
    (raw / "inside.nii").symlink_to("in/scan.nii")
    (raw / "loop.nii").symlink_to("loop.nii")
    for source in ("outside.nii", "linked/scan.nii", "half.hdr"):
        with pytest.raises(Refused, match=r"^outside"):
            read(raw, source)
    for options in ({"label": "outside.nii"}, {"modalities": ("outside.nii",)}):
        with pytest.raises(Refused, match=r"^outside"):
            read(raw, "in/scan.nii", **options)
    with pytest.raises(Refused, match=r"^unreadable"):
        read(raw, "loop.nii")
    (tmp_path / "elsewhere").symlink_to(raw)
    for folder in (raw, tmp_path / "elsewhere"):  # the raw folder itself may be a link
        assert np.array_equal(read(folder, "inside.nii")[0].data[0], voxels())


@pytest.mark.parametrize(
    ("name", "subject"),
    [
        ("OAS1_0061.nii", "OAS10061"),
        ("a b-c.nii.gz", "abc"),
        ("sub-x_y.nii", "x"),
        ("-.nii", "unnamed"),
        ("1.2.840.1.nii.gz", "128401"),
        ("scan.001.mgz", "scan001"),
        ("脳.nii", "29e5afdf"),
        ("李四_T1.NII.GZ", "T179989f5a"),
    ],
)
def test_a_subject_is_letters_and_digits(tmp_path: Path, name: str, subject: str) -> None:
    (tmp_path / name).touch()
    assert [c.subject for c in find(tmp_path, images="*")] == [subject]


def test_people_whose_names_no_label_holds_stay_apart(tmp_path: Path) -> None:
    names = ("李四_T1.nii", "王五_T1.nii", "sub-张三_T1.nii", "sub-José.nii", "sub-Josè.nii")
    for name in names:
        (tmp_path / name).touch()
    assert len({c.subject for c in find(tmp_path, images="*")}) == 5
    rows = [f"{name}\t{name[:-4]}" for name in names]
    write_table(tmp_path, "file\tsubject", *rows)
    assert len({c.subject for c in find(tmp_path, images="*", table="scans.tsv")}) == 5
    for form in ("NFC", "NFD"):
        folder = tmp_path / form
        folder.mkdir()
        (folder / unicodedata.normalize(form, "José.nii")).touch()
    (one, two) = (find(tmp_path / form, images="*")[0].subject for form in ("NFC", "NFD"))
    assert one == two


@pytest.mark.parametrize(
    ("first", "second"),
    [("SCAN.HDR", "SCAN.IMG"), ("scan.HDR.GZ", "scan.IMG.GZ"), ("scan.hdr", "scan.IMG.GZ")],
)
def test_a_pair_in_capitals_is_one(tmp_path: Path, first: str, second: str) -> None:
    raw = voxels().astype(np.float32).tobytes("F")
    for name, data in ((first, bytes(pair_header().binaryblock) + bytes(4)), (second, raw)):
        packs = name.lower().endswith(".gz")
        (tmp_path / name).write_bytes(gzip.compress(data) if packs else data)
    assert [c.source for c in find(tmp_path, images="*")] == [first]
    assert np.array_equal(nifti.read(tmp_path / first)[0].data[0], voxels())


@pytest.mark.parametrize("name", ["SCAN.NII", "scan.NII.GZ", "scan.nii.GZ", "T1.MGZ", "T1.MGH"])
def test_an_ending_in_capitals_is_the_same(tmp_path: Path, name: str) -> None:
    data = MGH if ".MG" in name else scan_bytes(voxels())
    packs = name.lower().endswith((".gz", ".mgz"))
    (tmp_path / name).write_bytes(gzip.compress(data) if packs else data)
    assert [c.source for c in find(tmp_path, images="*")] == [name]
    nifti.read(tmp_path / name)


@pytest.mark.parametrize("first", ["p-1", "sub-p1", "p_1"])
def test_subjects_of_a_table_are_cleaned_and_stay_apart(tmp_path: Path, first: str) -> None:
    for name in ("a.nii", "b.nii", "c.nii"):
        (tmp_path / name).touch()
    write_table(tmp_path, "file\tsubject", f"a.nii\t{first}", f"b.nii\t{first}", "c.nii\tp-2")
    assert [c.subject for c in find(tmp_path, images="*", table="scans.tsv")] == ["p1", "p1", "p2"]
    write_table(tmp_path, "file\tsubject", f"a.nii\t{first}", "b.nii\tp1", "c.nii\tp-2")
    with pytest.raises(InputError, match=r"has subjects .* Rename one of them"):
        find(tmp_path, images="*", table="scans.tsv")


@pytest.mark.parametrize("nobody", ["", " ", "n/a", "N/A", "null", "--", "sub-"])
def test_a_subject_without_a_name_is_an_error(tmp_path: Path, nobody: str) -> None:
    (tmp_path / "a.nii").touch()
    write_table(tmp_path, "file\tsubject", f"a.nii\t{nobody}", "other.nii\t")
    with pytest.raises(InputError, match=r"'a\.nii' .* that is nobody"):
        find(tmp_path, images="*", table="scans.tsv")
