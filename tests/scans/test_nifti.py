import gzip
import hashlib
import random
import tracemalloc
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from vqmri.errors import InputError
from vqmri.scans import image_file, nifti
from vqmri.scans.check import Refused
from vqmri.scans.volume import Candidate, Volume

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data" / "nasty"
SYNTHETIC = sorted(path for path in (SHARED / "synthetic").glob("*") if path.is_file())
OTHERS = sorted(
    path
    for room in ("nibabel", "niivue", "hippo_mismatch")
    for path in (SHARED / room).rglob("*")
    if path.name.endswith((".nii", ".nii.gz")) and path.stat().st_size < 2**20
)

AFFINE = np.array([[-2.0, 0, 0, 9], [0, 1.5, 0, -20], [0, 0, 3, 4], [0, 0, 0, 1]])
SHAPE = (5, 6, 7)
RGB = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])
MEGABYTE = 2**20


def voxels(shape: tuple[int, ...] = SHAPE) -> np.ndarray:
    return np.random.default_rng(0).normal(100, 20, shape).astype(np.float32)


def nifti_header(
    shape: tuple[int, ...] = SHAPE,
    dtype: Any = np.float32,
    *,
    second: bool = False,
    endian: str = "<",
) -> Any:
    header: Any = (nib.Nifti2Header if second else nib.Nifti1Header)(endianness=endian)
    header.set_data_dtype(dtype)
    header.set_data_shape(shape)
    header.set_sform(AFFINE, code=1)
    header["vox_offset"] = header.single_vox_offset
    header["magic"] = header.single_magic
    return header


def in_bytes(header: Any, data: np.ndarray | bytes) -> bytes:
    """A file of this header and these voxels, whether or not they belong together."""
    if isinstance(data, np.ndarray):
        data = data.astype(header.get_data_dtype()).tobytes(order="F")
    return bytes(header.binaryblock) + bytes(4) + data


def scan_bytes(data: np.ndarray, **options: Any) -> bytes:
    return in_bytes(nifti_header(data.shape, **options), data)


def refusal(path: Path) -> str:
    with pytest.raises(Refused) as caught:
        nifti.read(path)
    return caught.value.code


def refusal_of(tmp_path: Path, data: bytes, name: str = "scan.nii") -> str:
    path = tmp_path / name
    path.write_bytes(data)
    return refusal(path)


@contextmanager
def little_memory(megabytes: int) -> Iterator[None]:
    tracemalloc.start()
    try:
        yield
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < megabytes * MEGABYTE


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("second", [False, True], ids=["nifti1", "nifti2"])
@pytest.mark.parametrize("endian", ["<", ">"])
@pytest.mark.parametrize("shape", [SHAPE, (*SHAPE, 1)])
def test_good_files_are_read(
    tmp_path: Path, suffix: str, second: bool, endian: str, shape: tuple[int, ...]
) -> None:
    data = voxels(shape)
    raw = scan_bytes(data, second=second, endian=endian)
    raw = gzip.compress(raw) if suffix == ".nii.gz" else raw
    path = tmp_path / f"scan{suffix}"
    path.write_bytes(raw)
    volume, sha256 = nifti.read(path)
    assert volume.data.dtype == np.float32
    assert np.array_equal(volume.data, data.reshape(1, *SHAPE))
    assert volume.affine is not None
    assert np.array_equal(volume.affine, AFFINE)
    assert sha256 == hashlib.sha256(raw).hexdigest()


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float64"])
def test_voxels_of_every_type_are_scaled_as_the_header_says(tmp_path: Path, dtype: str) -> None:
    data = np.arange(210).reshape(SHAPE)
    header = nifti_header(dtype=dtype)
    header["scl_slope"], header["scl_inter"] = 0.5, -3
    (tmp_path / "scan.nii").write_bytes(in_bytes(header, data))
    volume, _ = nifti.read(tmp_path / "scan.nii")
    assert np.array_equal(volume.data[0], data * 0.5 - 3)


def test_the_qform_is_used_when_there_is_no_sform(tmp_path: Path) -> None:
    header = nifti_header()
    header.set_sform(None, code=0)
    header.set_qform(AFFINE, code=1)
    (tmp_path / "scan.nii").write_bytes(in_bytes(header, voxels()))
    volume, _ = nifti.read(tmp_path / "scan.nii")
    assert volume.affine is not None
    assert np.allclose(volume.affine, AFFINE, atol=1e-5)


def with_forms(qform: np.ndarray, **fields: float) -> bytes:
    """A file with both codes set, and fields of its header overwritten."""
    header = nifti_header()
    header.set_qform(qform, code=1)
    for name, value in fields.items():
        header[name] = value
    return in_bytes(header, voxels())


def test_the_sform_is_followed_and_a_qform_beside_it_is_kept(tmp_path: Path) -> None:
    other = AFFINE + np.eye(4, k=3) * 5
    (tmp_path / "scan.nii").write_bytes(with_forms(other))
    volume, _ = nifti.read(tmp_path / "scan.nii")
    assert volume.affine is not None
    assert volume.qform is not None
    assert np.array_equal(volume.affine, AFFINE)
    assert np.allclose(volume.qform, other, atol=1e-5)


@pytest.mark.parametrize("sform", [True, False])
def test_one_affine_alone_has_no_other_beside_it(tmp_path: Path, sform: bool) -> None:
    header = nifti_header()
    header.set_sform(AFFINE, code=int(sform))
    header.set_qform(AFFINE, code=int(not sform))
    (tmp_path / "scan.nii").write_bytes(in_bytes(header, voxels()))
    assert nifti.read(tmp_path / "scan.nii")[0].qform is None


@pytest.mark.parametrize(
    "fields",
    [
        {"quatern_b": 3.0},  # longer than any rotation's
        {"quatern_b": np.nan},
        {"qoffset_x": np.inf},
    ],
)
def test_a_qform_that_is_no_affine_is_no_reason_to_refuse(
    tmp_path: Path, fields: dict[str, float]
) -> None:
    (tmp_path / "scan.nii").write_bytes(with_forms(AFFINE, **fields))
    volume, _ = nifti.read(tmp_path / "scan.nii")
    assert volume.affine is not None
    assert volume.qform is not None
    assert np.array_equal(volume.affine, AFFINE)
    assert not np.isfinite(volume.qform).all()


def test_without_its_sign_of_handedness_a_qform_is_right_handed(tmp_path: Path) -> None:
    """As the standard has it for a pixdim[0] of 0, which many tools write."""
    right = np.diag([2.0, 1.5, 3, 1])
    raw = bytearray(with_forms(right))
    raw[76:80] = bytes(4)
    (tmp_path / "scan.nii").write_bytes(raw)
    volume, _ = nifti.read(tmp_path / "scan.nii")
    assert volume.qform is not None
    assert np.allclose(volume.qform, right)


def test_a_small_scan_that_is_nearly_empty_is_read(tmp_path: Path) -> None:
    """It compresses about as far as a bomb does; its size is what tells them apart."""
    data = np.zeros((100, 100, 100), dtype=np.float32)
    data[50, 50, 50] = 1
    raw = gzip.compress(scan_bytes(data))
    assert len(raw) * 500 < data.nbytes
    (tmp_path / "scan.nii.gz").write_bytes(raw)
    assert nifti.read(tmp_path / "scan.nii.gz")[0].data.sum() == 1


def with_value(value: float) -> np.ndarray:
    data = voxels()
    data[1, 2, 3] = value
    return data


def without_affine() -> bytes:
    header = nifti_header()
    header.set_sform(AFFINE, code=0)
    header.set_qform(AFFINE, code=0)
    return in_bytes(header, voxels())


def with_affine(affine: np.ndarray) -> bytes:
    header = nifti_header()
    header.set_sform(affine, code=1)
    return in_bytes(header, voxels())


def with_bytes(position: int, value: bytes) -> bytes:
    """A good file with some bytes of its header overwritten."""
    raw = bytearray(scan_bytes(voxels()))
    raw[position : position + len(value)] = value
    return bytes(raw)


BAD: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "unreadable"),
    "text": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n" * 20, "unreadable"),
    "header alone": (bytes(nifti_header().binaryblock), "unreadable"),
    "half a header": (scan_bytes(voxels())[:200], "unreadable"),
    "truncated": (scan_bytes(voxels())[:-1], "unreadable"),
    "4D": (scan_bytes(voxels((*SHAPE, 2))), "not-3d"),
    "2D": (scan_bytes(voxels((5, 6))), "not-3d"),
    "one slice": (scan_bytes(voxels((5, 6, 1))), "not-3d"),
    "complex": (scan_bytes(voxels(), dtype=np.complex64), "not-real"),
    "RGB": (in_bytes(nifti_header(dtype=RGB), bytes(3 * 210)), "not-real"),
    "NaN": (scan_bytes(with_value(np.nan)), "not-finite"),
    "infinite": (scan_bytes(with_value(np.inf)), "not-finite"),
    "beyond float32": (
        scan_bytes(voxels().astype(np.float64) * 1e300, dtype=np.float64),
        "not-finite",
    ),
    "constant": (scan_bytes(np.full(SHAPE, 3.0)), "constant"),
    "no affine": (without_affine(), "no-affine"),
    "singular": (with_affine(np.diag([1.0, 1.0, 0.0, 1.0])), "bad-affine"),
    "affine not finite": (with_affine(np.diag([1.0, np.inf, 1.0, 1.0])), "bad-affine"),
    # Faults that nibabel meets with KeyError and OverflowError.
    "no such type": (with_bytes(70, b"\x66\x66"), "unreadable"),
    "offset infinite": (with_bytes(108, np.float32(np.inf).tobytes()), "unreadable"),
    "offset beyond the file": (with_bytes(108, np.float32(1e30).tobytes()), "unreadable"),
}


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_refused(tmp_path: Path, name: str, suffix: str) -> None:
    data, code = BAD[name]
    data = gzip.compress(data) if suffix == ".nii.gz" else data
    assert refusal_of(tmp_path, data, f"scan{suffix}") == code


def test_a_gzip_that_ends_early_is_refused(tmp_path: Path) -> None:
    raw = gzip.compress(scan_bytes(voxels()))
    for length in (0, 1, 9, 11, 100, len(raw) // 2, len(raw) - 9, len(raw) - 8, len(raw) - 1):
        assert refusal_of(tmp_path, raw[:length], "scan.nii.gz") == "unreadable"


@pytest.mark.parametrize("position", range(-8, 0))
def test_a_wrong_checksum_or_length_in_the_gzip_is_refused(tmp_path: Path, position: int) -> None:
    raw = bytearray(gzip.compress(scan_bytes(voxels())))
    raw[position] ^= 1
    assert refusal_of(tmp_path, bytes(raw), "scan.nii.gz") == "unreadable"


def test_a_flipped_bit_in_the_gzip_is_never_silent(tmp_path: Path) -> None:
    whole = gzip.compress(scan_bytes(voxels()))
    # The first ten bytes are gzip's own header, whose time and system mean nothing to a scan.
    for position in random.Random(0).sample(range(10, len(whole)), 100):
        raw = bytearray(whole)
        raw[position] ^= 1 << position % 8
        assert refusal_of(tmp_path, bytes(raw), "scan.nii.gz") == "unreadable"


def test_what_is_no_gzip_but_named_so_is_refused(tmp_path: Path) -> None:
    assert refusal_of(tmp_path, scan_bytes(voxels()), "scan.nii.gz") == "unreadable"


def test_a_gzip_that_is_not_named_so_is_refused(tmp_path: Path) -> None:
    assert refusal_of(tmp_path, gzip.compress(scan_bytes(voxels())), "scan.nii") == "unreadable"


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize(
    ("shape", "dtype", "code"),
    [
        ((32767, 32767, 32767), np.uint8, "too-large"),
        ((32767, 32767, 32767), np.float64, "too-large"),
        ((1100, 1100, 1100), np.uint8, "unreadable"),
        ((800, 800, 800), np.float64, "unreadable"),
    ],
)
def test_a_small_file_that_promises_much_allocates_little(
    tmp_path: Path, suffix: str, shape: tuple[int, ...], dtype: Any, code: str
) -> None:
    data = in_bytes(nifti_header(shape, dtype), bytes(1000))
    data = gzip.compress(data) if suffix == ".nii.gz" else data
    with little_memory(2):
        assert refusal_of(tmp_path, data, f"scan{suffix}") == code


def bomb(header: Any, megabytes: int) -> bytes:
    """A gzip of a header and many zeros, made without holding them."""
    packer = zlib.compressobj(1, wbits=31)
    zeros = bytes(MEGABYTE)
    parts = [packer.compress(bytes(header.binaryblock) + bytes(4))]
    parts += [packer.compress(zeros) for _ in range(megabytes)]
    return b"".join([*parts, packer.flush()])


def test_a_bomb_behind_a_small_header_is_not_unpacked(tmp_path: Path) -> None:
    raw = bomb(nifti_header(), 256)
    assert len(raw) < 2 * MEGABYTE
    with little_memory(16):
        assert refusal_of(tmp_path, raw, "scan.nii.gz") == "unreadable"
    # The same of its first tenth: the end, and that there is none, was never reached.
    (tmp_path / "cut.nii.gz").write_bytes(raw[: len(raw) // 10])
    with pytest.raises(Refused, match="more in the file than its header says"):
        nifti.read(tmp_path / "cut.nii.gz")


def test_a_bomb_behind_an_honest_header_is_not_unpacked(tmp_path: Path) -> None:
    header = nifti_header((512, 512, 256), np.uint16)
    packer = zlib.compressobj(9, wbits=31)
    zeros = bytes(MEGABYTE)
    parts = [packer.compress(bytes(header.binaryblock) + bytes(4))]
    parts += [packer.compress(zeros) for _ in range(128)]
    raw = b"".join([*parts, packer.flush()])
    with little_memory(2):
        assert refusal_of(tmp_path, raw, "scan.nii.gz") == "unreadable"


def test_any_damage_to_a_header_is_refused_or_harmless(tmp_path: Path) -> None:
    """Whatever its header says, a file gives a volume or a refusal; nothing ends the run."""
    whole = scan_bytes(voxels())
    chance = random.Random(0)
    path = tmp_path / "scan.nii"
    codes = set()
    for _ in range(400):
        raw = bytearray(whole)
        for _ in range(chance.choice([1, 2, 4])):
            raw[chance.randrange(348)] = chance.choice([0, 127, 128, 255, chance.randrange(256)])
        path.write_bytes(raw)
        try:
            volume, _ = nifti.read(path)
        except Refused as refused:
            codes.add(refused.code)
        else:
            assert np.isfinite(volume.data).all()
            assert volume.affine is not None
            assert np.isfinite(volume.affine).all()
    assert {"unreadable", "not-3d"} <= codes


@pytest.mark.skipif(not SYNTHETIC, reason="the shared data are not here")
@pytest.mark.parametrize("path", SYNTHETIC, ids=lambda path: path.name)
def test_damaged_files_of_the_shared_data_are_refused(path: Path) -> None:
    assert refusal(path) == "unreadable"


@pytest.mark.skipif(not OTHERS, reason="the shared data are not here")
def test_odd_files_of_the_shared_data_give_a_volume_or_a_refusal() -> None:
    read, refused = 0, 0
    for path in OTHERS:
        try:
            volume, _ = nifti.read(path)
        except Refused:
            refused += 1
        else:
            assert volume.data.ndim == 4
            read += 1
    assert read > 0
    assert refused > 0


def find(raw: Path, **options: Any) -> list[Candidate]:
    defaults: dict[str, Any] = {
        "images": "images/*",
        "modalities": {},
        "labels": None,
        "table": None,
        "file_column": "file",
        "subject_column": "subject",
        "covariates": [],
    }
    return nifti.find(raw, **defaults | options)


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Three scans, two label maps, and things that are no scans; find() opens none of them."""
    for name in ("images/b.nii.gz", "images/a.nii", "images/c.nii.gz", "images/notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    for name in ("labels/b.nii.gz", "labels/a.nii", "labels/d.nii.gz"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def write_table(raw: Path, *rows: str, name: str = "scans.tsv") -> None:
    (raw / name).write_text("".join(f"{row}\n" for row in rows))


def test_find_sorts_what_the_glob_matches(raw: Path) -> None:
    found = find(raw)
    assert [c.source for c in found] == ["images/a.nii", "images/b.nii.gz", "images/c.nii.gz"]
    assert [c.subject for c in found] == ["a", "b", "c"]
    assert [c.source for c in find(raw, images="images/b*")] == ["images/b.nii.gz"]
    assert all(c.label is None and c.covariates == {} for c in found)


@pytest.mark.parametrize("images", ["images/x*", "images/notes.txt", "absent/*"])
def test_find_of_nothing_is_an_error(raw: Path, images: str) -> None:
    with pytest.raises(InputError, match="no NIfTI file matches"):
        find(raw, images=images)


def test_find_pairs_labels_by_name(raw: Path) -> None:
    assert [c.label for c in find(raw, labels="labels/*")] == [
        "labels/a.nii",
        "labels/b.nii.gz",
        "",
    ]


BIDS_FILES = (
    "sub-1/anat/sub-1_T1w.nii.gz",
    "sub-1/anat/sub-1_T2w.nii.gz",
    "sub-1/anat/sub-1_dseg.nii.gz",
    "sub-2/anat/sub-2_ses-a_T1w.nii.gz",
    "sub-2/anat/sub-2_ses-b_T2w.nii.gz",
    "sub-2/anat/sub-2_dseg.nii.gz",
)


@pytest.fixture
def bids(tmp_path: Path) -> Path:
    for name in BIDS_FILES:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    return tmp_path


def test_modalities_go_by_the_name_in_another_folder(raw: Path) -> None:
    found = find(raw, modalities={"FLAIR": "labels/*", "T2w": "labels/d*"})
    assert [c.modalities for c in found] == [
        ("labels/a.nii", ""),
        ("labels/b.nii.gz", ""),
        ("", ""),
    ]


def test_in_bids_the_last_suffix_may_differ(bids: Path) -> None:
    found = find(bids, images="**/*_T1w.*", modalities={"T2w": "**/*_T2w.*"}, labels="**/*_dseg.*")
    assert [c.source for c in found] == [BIDS_FILES[0], BIDS_FILES[3]]
    assert [c.modalities for c in found] == [(BIDS_FILES[1],), ("",)]  # of another session
    assert [c.label for c in found] == [BIDS_FILES[2], ""]


def test_names_that_are_not_of_bids_must_be_the_same(tmp_path: Path) -> None:
    for name in ("images/brain_001.nii", "labels/brain_002.nii"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    assert find(tmp_path, labels="labels/*")[0].label == ""


@pytest.mark.parametrize(
    ("images", "glob", "fault"),
    [
        ("**/*_T1w.*", "**/*", "T2w: .* matches .*sub-1_T1w.nii.gz, a scan itself"),
        ("**/*_T1w.*", "**/*_[Td][2s]*", "which all belong to sub-1_T1w.nii.gz"),
    ],
)
def test_a_glob_that_is_too_wide_is_an_error(
    bids: Path, images: str, glob: str, fault: str
) -> None:
    with pytest.raises(InputError, match=fault):
        find(bids, images=images, modalities={"T2w": glob})


def test_two_label_maps_of_one_name_are_an_error(raw: Path) -> None:
    (raw / "labels/more").mkdir()
    (raw / "labels/more/b.nii.gz").touch()
    with pytest.raises(InputError, match=r"several label maps called 'b\.nii\.gz'"):
        find(raw, labels="labels/**/*")


def test_find_reads_the_table(raw: Path) -> None:
    write_table(
        raw,
        "file\tsubject\tage\tgroup\tsite",
        "c.nii.gz\tp2\t30\tdepr\t1",
        "a.nii\tp1\t20.5\tcontrol\t2",
        "b.nii.gz\tp1\tn/a\t \t3",
        "other.nii.gz\tp3\t50\tcontrol\t4",
    )
    found = find(raw, table="scans.tsv", covariates=["age", "group"])
    assert [c.subject for c in found] == ["p1", "p1", "p2"]
    assert [c.covariates for c in found] == [
        {"age": 20.5, "group": "control"},
        {"age": None, "group": None},
        {"age": 30.0, "group": "depr"},
    ]


def test_find_reads_a_table_with_commas_and_a_byte_order_mark(raw: Path) -> None:
    text = "\ufeffname,person\r\n" + "".join(
        f"{n},p\r\n" for n in ("a.nii", "b.nii.gz", "c.nii.gz")
    )
    (raw / "scans.csv").write_text(text, encoding="utf-8", newline="")
    found = find(raw, table="scans.csv", file_column="name", subject_column="person")
    assert [c.subject for c in found] == ["p", "p", "p"]


def test_find_takes_a_row_that_ends_early_as_missing_values(raw: Path) -> None:
    write_table(raw, "file\tsubject\tage", "a.nii\tp1", "b.nii.gz\tp1\t2", "c.nii.gz\tp2\t3")
    assert find(raw, table="scans.tsv", covariates=["age"])[0].covariates == {"age": None}


@pytest.mark.parametrize("column", ["file", "subject", "age"])
def test_find_names_the_column_that_the_table_lacks(raw: Path, column: str) -> None:
    columns = [name for name in ("file", "subject", "age") if name != column]
    write_table(raw, "\t".join(columns), "a.nii\tp1")
    option = {"file": "file_column", "subject": "subject_column", "age": "covariates"}[column]
    with pytest.raises(InputError, match=rf"has no column '{column}'.*ingest\.source\.{option}"):
        find(raw, table="scans.tsv", covariates=["age"])


def test_find_names_the_scan_that_the_table_lacks(raw: Path) -> None:
    write_table(raw, "file\tsubject", "a.nii\tp1", "b.nii.gz\tp1")
    with pytest.raises(InputError, match=r"no row with 'c\.nii\.gz' in its column 'file'"):
        find(raw, table="scans.tsv")


def test_a_table_may_name_scans_without_ending_or_suffix(tmp_path: Path) -> None:
    for name in ("1000_SS.nii.gz", "1000_T1w.nii.gz", "1001.mgz", "b.nii"):
        (tmp_path / name).touch()
    write_table(tmp_path, "file\tsubject", "1000\tp1", "1001\tp2", "b.nii\tp3")
    found = find(tmp_path, images="*", table="scans.tsv")
    assert [(c.source, c.subject) for c in found] == [
        ("1000_SS.nii.gz", "p1"), ("1000_T1w.nii.gz", "p1"), ("1001.mgz", "p2"), ("b.nii", "p3"),
    ]  # fmt: skip


def test_a_row_of_the_whole_name_goes_before_one_without_suffix(tmp_path: Path) -> None:
    (tmp_path / "1000_SS.nii.gz").touch()
    write_table(tmp_path, "file\tsubject", "1000\tp1", "1000_SS\tp2", "1000_SS.nii.gz\tp3")
    assert find(tmp_path, images="*", table="scans.tsv")[0].subject == "p3"


@pytest.mark.parametrize("second", ["p2\t20", "p1\t21"])
def test_two_different_rows_of_a_scan_are_an_error(raw: Path, second: str) -> None:
    rows = ("a.nii\tp1\t20\tx", "b.nii.gz\tp1\t2\tx", "c\tp2\t3\tx", "n/a\tp3\t\tx", "n/a\tp4\t\tx")
    same = ("a.nii\tp1\t20\tof what nobody asked for",)
    write_table(raw, "file\tsubject\tage\tnotes", *rows, *same)
    assert len(find(raw, table="scans.tsv", covariates=["age"])) == 3
    write_table(raw, "file\tsubject\tage\tnotes", *rows, f"a.nii\t{second}\tx")
    with pytest.raises(InputError, match=r"scans\.tsv has two different rows of 'a\.nii'\. Remove"):
        find(raw, table="scans.tsv", covariates=["age"])


@pytest.mark.parametrize("cell", ["n/a", "N/A", "NA", "na", "n.a.", "NaN", "null", "NULL", " N/a "])
def test_a_cell_without_a_value_is_missing(cell: str) -> None:
    assert nifti.value(cell) is None


def test_find_names_a_table_that_is_missing(raw: Path) -> None:
    with pytest.raises(InputError, match=r"scans\.tsv is missing"):
        find(raw, table="scans.tsv")


VOLUME = Volume(np.zeros((1, *SHAPE), dtype=np.float32), AFFINE)


def label_refusal(path: Path) -> str:
    with pytest.raises(Refused) as caught:
        nifti.check_label(path, VOLUME)
    return caught.value.code


@pytest.mark.parametrize("shape", [SHAPE, (*SHAPE, 1)])
def test_a_label_map_on_the_grid_of_its_scan_passes(tmp_path: Path, shape: tuple[int, ...]) -> None:
    (tmp_path / "label.nii.gz").write_bytes(gzip.compress(scan_bytes(voxels(shape), dtype="u1")))
    nifti.check_label(tmp_path / "label.nii.gz", VOLUME)


def test_a_missing_label_map_is_refused(tmp_path: Path) -> None:
    # find() gives "" for a scan without one, which then is the raw folder.
    assert label_refusal(tmp_path / "") == "label-missing"
    with pytest.raises(Refused, match="mask-missing"):
        nifti.read_mask(tmp_path / "", VOLUME)


def test_a_label_map_that_was_found_and_is_gone_is_not_missing(tmp_path: Path) -> None:
    for read in (nifti.check_label, nifti.read_mask):
        with pytest.raises(FileNotFoundError):
            read(tmp_path / "absent.nii.gz", VOLUME)


def test_a_label_map_of_another_shape_is_refused(tmp_path: Path) -> None:
    (tmp_path / "label.nii").write_bytes(scan_bytes(voxels((5, 7, 6)), dtype="u1"))
    assert label_refusal(tmp_path / "label.nii") == "label-mismatch"


def test_a_label_map_in_another_place_is_refused(tmp_path: Path) -> None:
    header = nifti_header(dtype="u1")
    header.set_sform(AFFINE @ np.diag([-1, 1, 1, 1]), code=1)
    (tmp_path / "label.nii").write_bytes(in_bytes(header, voxels()))
    assert label_refusal(tmp_path / "label.nii") == "label-mismatch"


def test_a_mask_that_compresses_as_a_bomb_does_is_read_beside_its_scan(tmp_path: Path) -> None:
    lesion = np.zeros((256, 256, 256), dtype=np.float32)
    lesion[100:110, 100:110, 100:110] = 1
    path = tmp_path / "lesion.nii.gz"
    path.write_bytes(gzip.compress(scan_bytes(lesion), 6))
    assert path.stat().st_size * 900 < lesion.nbytes
    beside = Volume(np.broadcast_to(np.float32(0), (1, *lesion.shape)), AFFINE)
    assert np.array_equal(nifti.read_label(path, beside, [0, 1]), lesion)
    assert np.array_equal(nifti.read_mask(path, beside), lesion)
    with pytest.raises(Refused, match="label-mismatch"):
        nifti.read_label(path, VOLUME, [0, 1])
    with little_memory(2):
        assert refusal(path) == "unreadable"
        with pytest.raises(Refused, match="more than the file can hold"):
            nifti.read(path, least=image_file.least_of(VOLUME.data.size))


@pytest.mark.parametrize(
    "data", [b"", b"junk", scan_bytes(voxels()), gzip.compress(b"junk", mtime=0)]
)
def test_a_damaged_label_map_is_refused(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "label.nii.gz").write_bytes(data)
    assert label_refusal(tmp_path / "label.nii.gz") == "unreadable"
