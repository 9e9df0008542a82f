import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from tests.scans import dicom_files, test_bids_dataset, test_images, test_nifti
from vqmri.errors import InputError
from vqmri.scans import bids_dataset, dicom, kinds
from vqmri.scans.kinds import kind_of

DATA = Path(__file__).resolve().parents[3] / "shared" / "data"
here = pytest.mark.skipif(not DATA.is_dir(), reason="the shared data are not here")


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    folder = tmp_path / "raw"
    folder.mkdir()
    return folder


def write(path: Path, data: bytes = b"") -> None:
    """Names alone tell images, so that an empty file is enough."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def write_dicom(raw: Path, name: str = "IM0000", **options: Any) -> Path:
    path = raw / name
    (made,) = dicom_files.write([dicom_files.image()], path.parent, **options)
    return made.rename(path)


@pytest.mark.parametrize(
    "name",
    [
        "scan.nii", "a/b/scan.nii.gz", "scan.hdr", "scan.img", "scan.img.gz", "scan.mgh",
        "mri/T1.mgz", "SCAN.NII", "T1.MGZ", "labels/scan.nii.gz", "sub-01/func/sub-01_bold.nii.gz",
    ],
)  # fmt: skip
def test_images_are_known_by_their_names(raw: Path, name: str) -> None:
    write(raw / "notes.txt", b"8 people")
    write(raw / name)
    assert kind_of(raw) == "nifti"


@pytest.mark.parametrize("name", ["IM0000", "a/b/1.dcm", "notes.txt", "a/scan.nii.gz", "x.img"])
@pytest.mark.parametrize("bare", [False, True], ids=["with preamble", "bare"])
def test_dicom_is_known_by_its_beginning(raw: Path, name: str, bare: bool) -> None:
    write(raw / "notes.pdf", b"%PDF")
    write_dicom(raw, name, bare=bare)
    assert kind_of(raw) == "dicom"
    assert [c.source for c in dicom.find(raw, description=None, subject_key=None, covariates=[])]


@pytest.mark.parametrize(
    "data", [b"", b"DICM", bytes(128), b"\x08\x00\x05\x00 and is nothing", bytes(127) + b"DICM"]
)
def test_what_only_looks_like_dicom_is_none(raw: Path, data: bytes) -> None:
    write(raw / "file", data)
    with pytest.raises(InputError, match="holds no scans"):
        kind_of(raw)
    write(raw / "scan.nii.gz")
    assert kind_of(raw) == "nifti"


@pytest.mark.parametrize(
    "name",
    [
        "dataset_description.json", "sub-01/anat/sub-01_T1w.nii.gz", "sub-1/anat/sub-1_T2w.nii",
        "sub-01/ses-a/anat/sub-01_ses-a_T1w.nii.gz", "sub-01/anat/sub-01_T1w.NII.GZ",
    ],
)  # fmt: skip
def test_a_bids_data_set_stays_one_whatever_else_is_in_it(raw: Path, name: str) -> None:
    write(raw / name, b"{}")
    assert kind_of(raw) == "bids"
    write_dicom(raw, "sourcedata/sub-01/IM0000")
    write(raw / "derivatives/fs/sub-01/mri/T1.mgz")
    assert kind_of(raw) == "bids"


def test_what_is_bids_by_its_names_is_found_as_bids(raw: Path) -> None:
    write(raw / "sub-01/ses-a/anat/sub-01_ses-a_T1w.nii.gz")
    assert kind_of(raw) == "bids"
    found = bids_dataset.find(raw, suffix="T1w", sessions=None, acquisitions=None, covariates=[])
    assert len(found) == 1


@pytest.mark.parametrize(
    "name",
    [
        "sub-01/anat/T1w.nii.gz", "anat/sub-01_T1w.nii.gz", "sub-01/anat/sub-01_T1w.mgz",
        "data/sub-01/anat/sub-01_T1w.nii.gz", "sub-01/sub-01_T1w.nii.gz",
    ],
)  # fmt: skip
def test_names_that_only_resemble_those_of_bids(raw: Path, name: str) -> None:
    write(raw / name)
    write(raw / "data/dataset_description.json")  # not at the top
    assert kind_of(raw) == "nifti"


def test_both_are_an_error_with_the_count_of_each(raw: Path) -> None:
    for number in range(3):
        write(raw / f"nifti/{number}.nii.gz")
    dicom_files.write(dicom_files.stack(5), raw / "dicom")
    with pytest.raises(InputError) as caught:
        kind_of(raw)
    text = str(caught.value)
    assert "holds both, 3 files of NIfTI or FreeSurfer and 5 of DICOM" in text
    assert "Set ingest.source.kind to one of them, nifti or dicom" in text
    assert "at least" not in text


def test_counting_ends_when_both_are_known(raw: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kinds, "_ENOUGH", 4)
    for number in range(6):
        write(raw / f"{number}.nii")
    assert kind_of(raw) == "nifti"  # six are more than enough, and yet of one kind
    dicom_files.write(dicom_files.stack(6), raw / "z")
    with pytest.raises(InputError, match=r"at least 6 files .* and at least 1 of DICOM"):
        kind_of(raw)


@pytest.mark.parametrize("files", [[], ["a.png", "t10k-images-idx3-ubyte.gz", "readme"]])
def test_neither_says_what_was_looked_for(raw: Path, files: list[str]) -> None:
    for name in files:
        write(raw / name, b"\x1f\x8b")
    with pytest.raises(InputError) as caught:
        kind_of(raw)
    for word in ("BIDS", ".nii", "DICOM", "idx, images or phantom", str(raw)):
        assert word in str(caught.value)


def test_masks_among_many_scans_are_named_in_a_time_that_grows_as_they_do(raw: Path) -> None:
    compared = 0

    class Source(str):
        __slots__ = ()
        __hash__ = str.__hash__

        def __eq__(self, other: object) -> bool:
            nonlocal compared
            compared += 1
            return super().__eq__(other)

    names = [Source(f"{n}_{what}.nii.gz") for n in range(100) for what in ("T1w", "mask")]
    with pytest.raises(InputError, match=r"(?s)100 files, as 0_mask.* images: .\*_T1w\.nii"):
        kinds.check_plain(raw, names)
    assert compared <= len(names)


def test_a_missing_folder_is_an_error(raw: Path) -> None:
    with pytest.raises(InputError, match="is missing or is no folder"):
        kind_of(raw / "nowhere")
    write(raw / "scan.nii")
    with pytest.raises(InputError, match="is missing or is no folder"):
        kind_of(raw / "scan.nii")


def test_what_is_hidden_does_not_count(raw: Path) -> None:
    write_dicom(raw, ".git/objects/IM0000")
    write(raw / ".cache/scan.nii.gz")
    write(raw / "a/._scan.nii.gz")
    write_dicom(raw, "a/.hidden")
    with pytest.raises(InputError, match="holds no scans"):
        kind_of(raw)
    write(raw / "a/scan.nii.gz")
    assert kind_of(raw) == "nifti"


def test_links_are_not_followed_and_count_by_their_names(raw: Path, tmp_path: Path) -> None:
    outside = write_dicom(tmp_path, "outside/IM0000")
    (raw / "IM0000").symlink_to(outside)
    (raw / "folder").symlink_to(outside.parent)
    (raw / "loop").symlink_to(raw)
    with pytest.raises(InputError, match="holds no scans"):
        kind_of(raw)
    (raw / "scan.nii.gz").symlink_to("nowhere")  # as git-annex has what it did not fetch
    assert kind_of(raw) == "nifti"


@pytest.mark.timeout(20)
def test_a_pipe_is_not_waited_for(raw: Path) -> None:
    os.mkfifo(raw / "pipe")
    write_dicom(raw)
    assert kind_of(raw) == "dicom"


@pytest.mark.timeout(20)
def test_few_bytes_of_a_file_are_read(raw: Path) -> None:
    with write_dicom(raw).open("r+b") as file:
        file.truncate(2**40)  # of which the disk holds what was written
    assert kind_of(raw) == "dicom"


def test_a_real_image_is_no_dicom(raw: Path) -> None:
    image: Any = nib.Nifti1Image(np.zeros((2, 2, 2), np.uint8), np.eye(4))
    nib.save(image, raw / "scan.nii")
    nib.save(image, raw / "scan2.nii.gz")
    assert kind_of(raw) == "nifti"


@pytest.mark.skipif(os.getuid() == 0, reason="root may read everything")
def test_a_file_that_nobody_may_read_is_passed_over(raw: Path) -> None:
    write_dicom(raw).chmod(0)
    with pytest.raises(InputError, match="holds no scans"):
        kind_of(raw)


def not_listed(monkeypatch: pytest.MonkeyPatch, name: str, number: int = errno.EACCES) -> None:
    """Folders of this name fail; to root, who may run the tests, chmod is nothing."""
    scandir = os.scandir

    def failing(path: Any = ".") -> Any:
        if os.path.basename(path) == name:  # noqa: PTH119
            raise OSError(number, os.strerror(number), str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", failing)


@pytest.mark.parametrize("number", [errno.EACCES, errno.EPERM, errno.EIO])
def test_a_folder_that_may_not_be_listed_is_not_empty(
    raw: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    for name in ("sub-01/anat/sub-01_T1w.nii.gz", "sub-02/closed/sub-02_T1w.nii.gz", "a/1.nii"):
        write(raw / name)
    write(raw / "sub-01/anat/0.png")
    write_dicom(raw, "d/e/IM0000")
    not_listed(monkeypatch, "closed", number)
    finds: list[Callable[[], Any]] = [
        lambda: test_nifti.find(raw, images="**/*"),
        lambda: test_nifti.find(raw, images="sub-*/*/*.nii.gz"),
        lambda: test_nifti.find(raw, images="a/*", labels="**/*_T1w.nii.gz"),
        lambda: test_images.find(raw, "*/*/*"),
        lambda: test_bids_dataset.find(raw),
        lambda: dicom.find(raw, description=None, subject_key=None, covariates=[]),
        lambda: kind_of(raw / "sub-02"),
    ]
    words = "closed may not be listed.*Let this user read it" if number != errno.EIO else "closed"
    for find in finds:
        with pytest.raises(OSError if number == errno.EIO else InputError, match=words):
            find()
    for images in ("a/*", "*/*", "sub-01/**/*"):  # these look into no closed folder
        assert test_nifti.find(raw, images=images)


def test_a_closed_folder_that_holds_no_scans_by_its_name_is_passed_over(
    raw: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("lost+found", ".Trash"):
        (raw / name).mkdir()
        not_listed(monkeypatch, name)
    write(raw / "a/1.nii")
    assert kind_of(raw) == "nifti"
    assert len(test_nifti.find(raw, images="**/*")) == 1


@here
@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("hippocampus", "nifti"),
        ("oasis_t1w_ss", "nifti"),
        ("depression_t1w_bids", "bids"),
        ("dicom/siemens_t1_sag_positions", "dicom"),
        ("dicom/dcm_qa_12bit/In", "dicom"),
        ("dicom/dcm_qa_12bit/ref_dcm2niix", "nifti"),
        ("dicom/dcm_qa_enh/In", "dicom"),
        ("dicom/dcm_qa_nih/20180918GE", "dicom"),
        ("dicom/dcm_qa_nih/20180918Si", "dicom"),
        ("dicom/siemens_xa30_enhanced_t1w/5_anat-T1w_acq-tfl", "dicom"),
    ],
)
def test_real_data(name: str, kind: str) -> None:
    assert kind_of(DATA / name) == kind


@here
def test_dicom_beside_its_references_is_both() -> None:
    with pytest.raises(InputError, match=r"both, 13 files of NIfTI .* and 238 of DICOM"):
        kind_of(DATA / "dicom")
    with pytest.raises(InputError, match=r"idx, images or phantom"):
        kind_of(DATA / "mnist")


@here
def test_odd_dicom_files_are_known_for_what_they_are(raw: Path) -> None:
    missed = []
    for path in sorted((DATA / "nasty/pydicom").glob("*.dcm")):
        shutil.copyfile(path, raw / "file")
        try:
            assert kind_of(raw) == "dicom"
        except InputError:
            missed.append(path.name)
    assert missed == ["no_meta.dcm"]  # has no preamble and names no class; `dicom.find` passes too
