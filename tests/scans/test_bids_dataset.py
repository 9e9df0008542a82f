from pathlib import Path
from typing import Any

import pytest

from vqmri.errors import InputError
from vqmri.scans import bids_dataset, nifti
from vqmri.scans.check import Refused
from vqmri.scans.volume import Candidate

REAL = Path(__file__).resolve().parents[3] / "shared" / "data" / "depression_t1w_bids"

SESSIONS = (
    "sub-01/ses-a/anat/sub-01_ses-a_acq-fast_run-1_T1w.nii.gz",
    "sub-01/ses-a/anat/sub-01_ses-a_acq-fast_run-2_T1w.nii.gz",
    "sub-01/ses-b/anat/sub-01_ses-b_acq-slow_T1w.nii",
    "sub-02/anat/sub-02_T1w.nii.gz",
)


def find(raw: Path, **options: Any) -> list[Candidate]:
    defaults: dict[str, Any] = {
        "suffix": "T1w",
        "sessions": None,
        "acquisitions": None,
        "covariates": [],
    }
    return bids_dataset.find(raw, **defaults | options)


def sources(raw: Path, **options: Any) -> list[str]:
    return [candidate.source for candidate in find(raw, **options)]


def covariates(raw: Path, *names: str) -> list[list[Any]]:
    found = find(raw, covariates=list(names))
    assert all(list(candidate.covariates) == list(names) for candidate in found)
    return [list(candidate.covariates.values()) for candidate in found]


def touch(raw: Path, *names: str) -> None:
    for name in names:
        (raw / name).parent.mkdir(parents=True, exist_ok=True)
        (raw / name).touch()


def write(path: Path, *rows: str) -> None:
    path.write_text("".join("\t".join(row.split()) + "\n" for row in rows))


@pytest.fixture
def raw(tmp_path: Path) -> Path:
    """Two people, one with sessions and runs; empty files, for find() opens none of them."""
    touch(tmp_path, "dataset_description.json", *SESSIONS)
    return tmp_path


def test_sessions_and_runs_are_scans_of_their_subject(raw: Path) -> None:
    found = find(raw)
    assert [c.source for c in found] == list(SESSIONS)
    assert [c.subject for c in found] == ["01", "01", "01", "02"]
    assert all(c.covariates == {} and c.label is None and c.split == "" for c in found)


def test_only_raw_images_with_names_of_bids_are_taken(raw: Path) -> None:
    touch(
        raw,
        "derivatives/fmriprep/sub-01/anat/sub-01_T1w.nii.gz",
        "sourcedata/sub-01/anat/sub-01_T1w.nii.gz",
        ".git/sub-01/anat/sub-01_T1w.nii.gz",
        "sub-02/derivatives/sub-02_T1w.nii.gz",
        "sub-02/sourcedata/sub-02_T1w.nii.gz",
        "sub-02/.old/sub-02_T1w.nii.gz",
        "sub-02/anat/.sub-02_T1w.nii.gz",
        "sub-02/anat/sub-02_T2w.nii.gz",
        "sub-02/anat/sub-02_T1w.json",
        "sub-02/anat/sub-02_T1w.nii.gz.bak",
        "sub-02/anat/sub-02_T1w.mgz",
        "sub-02/anat/sub-02_new_T1w.nii.gz",
        "sub-02/anat/sub-02_T1w_old.nii.gz",
        "sub-02/anat/sub-02 copy_T1w.nii.gz",
        "sub-02/anat/sub-_T1w.nii.gz",
        "sub-02/anat/T1w.nii.gz",
        "group/anat/sub-03_T1w.nii.gz",
        "sub-04_T1w.nii.gz",
    )
    strange = (
        "sub-02/anat/T1w.nii.gz",
        "sub-02/anat/sub-02 copy_T1w.nii.gz",
        "sub-02/anat/sub-02_T1w.mgz",
        "sub-02/anat/sub-02_new_T1w.nii.gz",
        "sub-02/anat/sub-_T1w.nii.gz",
    )
    assert sources(raw) == sorted([*SESSIONS, *strange])
    for name in strange:  # it lies among them, and to pass over it in silence would lose a scan
        with pytest.raises(Refused, match=r"^not-bids-named: .*sub-LABEL"):
            bids_dataset.read(raw, Candidate(name, "", {}))
    assert sources(raw, suffix="T2w") == ["sub-02/anat/sub-02_T2w.nii.gz"]


def test_capitals_in_the_ending_are_the_same(raw: Path) -> None:
    touch(raw, "sub-05/anat/sub-05_T1w.NII.GZ", "sub-06/anat/sub-06_T1w.Nii")
    assert [c.subject for c in find(raw)][-2:] == ["05", "06"]


def test_names_that_are_none_of_bids_are_told_where_there_are_no_others(tmp_path: Path) -> None:
    touch(tmp_path, "sub-NYU-04/anat/sub-NYU-04_T1w.nii.gz", "sub-NYU-05/anat/sub-NYU-05_T1w.nii")
    with pytest.raises(
        InputError, match=r"2 files, as sub-NYU-04/.*not named so\. Rename them, or"
    ):
        find(tmp_path)


def test_a_session_or_an_acquisition_is_chosen_by_its_label(raw: Path) -> None:
    assert sources(raw, sessions=["b"]) == [SESSIONS[2]]
    assert sources(raw, sessions=["a", "b"]) == list(SESSIONS[:3])
    assert sources(raw, acquisitions=["fast"]) == list(SESSIONS[:2])
    with pytest.raises(InputError, match=r"source\.session: no T1w .* 'c'; there are \['a', 'b'\]"):
        find(raw, sessions=["a", "c"])
    with pytest.raises(InputError, match=r"acquisition 'a'; there are \['fast'\]"):
        find(raw, sessions=["a"], acquisitions=["a"])


def test_a_dataset_needs_no_description(raw: Path) -> None:
    (raw / "dataset_description.json").unlink()
    assert sources(raw) == list(SESSIONS)


def test_find_of_nothing_says_what_was_looked_for(raw: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"_bold\.nii\[\.gz\]; the suffixes there are \['T1w'\]"):
        find(raw, suffix="bold")
    touch(tmp_path, "other/set/sub-1/anat/sub-1_T1w.nii", "empty/dataset_description.json")
    for folder in ("other", "absent"):
        with pytest.raises(InputError, match=r"sub-LABEL/.*_T1w.* and no dataset_description\.jso"):
            find(tmp_path / folder)
    with pytest.raises(InputError, match="Perhaps it is 'set' in it"):
        find(tmp_path / "other")
    with pytest.raises(InputError, match=r"_T1w\.nii\[\.gz\]\. Set ingest\.raw"):
        find(tmp_path / "empty")


@pytest.mark.parametrize(
    "name",
    [
        "sub-01/ses-a/anat/sub-02_ses-a_T1w.nii.gz",
        "sub-01/ses-a/anat/sub-01_ses-b_T1w.nii.gz",
        "sub-01/ses-a/anat/sub-01_T1w.nii.gz",
        "sub-1/anat/sub-01_T1w.nii.gz",
    ],
)
def test_a_name_that_contradicts_its_folder_is_an_error(raw: Path, name: str) -> None:
    touch(raw, name)
    with pytest.raises(InputError, match=f"{name} lies in .* not named so"):
        find(raw)
    with pytest.raises(InputError, match="the suffixes there are"):  # not asked for, not judged
        find(raw, suffix="T2w")


def test_covariates_are_those_of_the_participant(raw: Path) -> None:
    write(
        raw / "participants.tsv",
        "participant_id age group IQ-test",
        "sub-03 50 control 90",  # without images
        "02 n/a depr 100",
        "sub-01 20.5 n/a n/a",
    )
    assert covariates(raw, "group", "age", "IQ-test") == [[None, 20.5, None]] * 3 + [
        ["depr", None, 100.0]
    ]


def test_a_subject_who_is_not_listed_has_no_values(raw: Path) -> None:
    write(raw / "participants.tsv", "participant_id age", "sub-02 30")
    assert covariates(raw, "age") == [[None]] * 3 + [[30.0]]


def test_a_table_that_lost_its_zeros_is_an_error(raw: Path) -> None:
    write(raw / "participants.tsv", "participant_id age", "1 20", "sub-02 30")
    with pytest.raises(InputError, match="lists '1' and not '01'"):
        find(raw, covariates=["age"])


def test_a_covariate_of_a_session_is_that_sessions(raw: Path) -> None:
    touch(raw, "sub-03/ses-a/anat/sub-03_ses-a_T1w.nii.gz")
    write(
        raw / "participants.tsv", "participant_id age sex", "sub-01 20 F", "sub-02 30 M", "03 40 F"
    )
    write(raw / "sub-01/sub-01_sessions.tsv", "session_id age score", "a 21 n/a", "ses-b n/a 7")
    assert covariates(raw, "age", "sex", "score") == [
        [21.0, "F", None],
        [21.0, "F", None],
        [None, "F", 7.0],
        [30.0, "M", None],
        [40.0, "F", None],
    ]


def test_sessions_tables_alone_are_enough(raw: Path) -> None:
    write(raw / "sub-01/sub-01_sessions.tsv", "session_id age", "ses-a 21")
    assert covariates(raw, "age") == [[21.0], [21.0], [None], [None]]


def test_a_column_that_no_table_has_is_an_error_that_lists_those_there(raw: Path) -> None:
    with pytest.raises(
        InputError, match=r"'age' is no column .* is missing or empty\. Add the column"
    ):
        find(raw, covariates=["age"])
    write(raw / "participants.tsv", "participant_id sex group", "sub-01 F x")
    write(raw / "sub-01/sub-01_sessions.tsv", "session_id score", "ses-a 21")
    with pytest.raises(InputError, match=r"'age'.* has \['sex', 'group'\].* have \['score'\]"):
        find(raw, covariates=["sex", "age"])
    assert len(find(raw)) == 4  # nobody asked


def test_rows_that_differ_in_what_is_asked_for_are_an_error(raw: Path) -> None:
    write(raw / "participants.tsv", "participant_id sex age", "sub-01 F 1", "01 F 2")
    assert covariates(raw, "sex")[0] == ["F"]
    with pytest.raises(InputError, match=r"two different rows of sub-01"):
        find(raw, covariates=["age"])


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", "no column 'participant_id'"),
        (b"id\tage\nsub-01\t3\n", "no column 'participant_id'; it has"),
        (b"participant_id,age\nsub-01,3\n", "no column 'participant_id'; it has"),
        (b"participant_id\tage\nsub-01\t\xff\xfe\n", "no table in UTF-8"),
    ],
)
def test_a_table_that_is_none_is_an_error(raw: Path, content: bytes, fault: str) -> None:
    (raw / "participants.tsv").write_bytes(content)
    with pytest.raises(InputError, match=fault):
        find(raw, covariates=["age"])


def test_a_table_of_windows_is_read(raw: Path) -> None:
    text = "\ufeffparticipant_id\tage\r\nsub-02\t3\r\n\r\nsub-01\r\n"
    (raw / "participants.tsv").write_text(text, encoding="utf-8", newline="")
    assert covariates(raw, "age") == [[None]] * 3 + [[3.0]]


def test_tables_are_those_of_the_subjects_there(raw: Path) -> None:
    found = find(raw)
    assert bids_dataset.tables(raw, found) == []
    write(raw / "participants.tsv", "participant_id age")
    write(raw / "sub-01/sub-01_sessions.tsv", "session_id score")
    touch(raw, "sub-03/sub-03_sessions.tsv")
    assert bids_dataset.tables(raw, found) == ["participants.tsv", "sub-01/sub-01_sessions.tsv"]


def test_links_are_found_and_those_out_of_the_dataset_refused(tmp_path: Path) -> None:
    raw = tmp_path / "raw"
    touch(raw, ".git/annex/1.nii.gz", "sub-01/anat/x", "sub-05/loop")
    touch(tmp_path, "out/sub-03/anat/sub-03_T1w.nii.gz")
    (raw / "sub-01/anat/sub-01_T1w.nii.gz").symlink_to("../../.git/annex/1.nii.gz")
    (raw / "sub-02").mkdir()
    (raw / "sub-02/anat").symlink_to("../sub-05")
    (raw / "sub-03").symlink_to(tmp_path / "out/sub-03")
    (raw / "sub-05/anat").symlink_to(".")
    names = sources(raw)
    assert names == ["sub-01/anat/sub-01_T1w.nii.gz", "sub-03/anat/sub-03_T1w.nii.gz"]
    assert nifti.locate(raw, names[0]).is_file()
    with pytest.raises(Refused, match="outside"):
        nifti.locate(raw, names[1])


@pytest.mark.skipif(not REAL.is_dir(), reason="the shared data are not here")
def test_a_real_dataset_is_found() -> None:
    found = find(REAL, covariates=["age", "gender", "group", "MADRS"])
    assert len(found) == len({c.subject for c in found}) == 12
    assert {c.covariates["gender"] for c in found} == {"f", "m"}
    assert found[0].covariates == {"age": 32.0, "gender": "f", "group": "depr", "MADRS": None}
    assert bids_dataset.tables(REAL, found) == ["participants.tsv"]
