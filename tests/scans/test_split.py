from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vqmri.errors import ParamsError
from vqmri.scans.split import HELD_OUT, TRAIN, split_subjects, strata_of
from vqmri.scans.volume import Record

SUBJECTS = [f"sub-{number:03d}" for number in range(100)]
PINNED = ["sub-002", "sub-004", "sub-006"]


@given(
    scans=st.lists(st.text(max_size=3), min_size=2, max_size=40).filter(lambda s: len(set(s)) > 1),
    held_out=st.floats(0, 1),
    seed=st.integers(0, 2**32),
)
def test_every_person_is_on_one_side_and_no_side_is_empty(
    scans: list[str], held_out: float, seed: int
) -> None:
    sides = split_subjects(scans, held_out=held_out, seed=seed)
    assert set(sides) == set(scans)
    train = {scan for scan in scans if sides[scan] == TRAIN}
    rest = {scan for scan in scans if sides[scan] == HELD_OUT}
    assert train
    assert rest
    assert train.isdisjoint(rest)
    assert train | rest == set(scans)
    # As near to the share that was asked for as whole persons allow.
    people = len(sides)
    assert len(rest) == min(max(round(held_out * people), 1), people - 1)


@given(st.permutations(SUBJECTS[:12]), st.integers(0, 2**32))
def test_neither_order_nor_number_of_scans_matters(order: list[str], seed: int) -> None:
    expected = split_subjects(SUBJECTS[:12], held_out=0.3, seed=seed)
    assert split_subjects([*order, *order[:5]], held_out=0.3, seed=seed) == expected


def test_the_seed_decides() -> None:
    first = split_subjects(SUBJECTS, held_out=0.2, seed=0)
    assert split_subjects(SUBJECTS, held_out=0.2, seed=0) == first
    assert split_subjects(SUBJECTS, held_out=0.2, seed=1) != first
    assert list(first.values()).count(HELD_OUT) == 20


@pytest.mark.parametrize("subjects", [[], ["one"], ["one", "one", "one"]])
def test_fewer_than_two_people_cannot_be_split(subjects: list[str]) -> None:
    with pytest.raises(ValueError, match="at least two subjects"):
        split_subjects(subjects, held_out=0.5, seed=0)


@given(
    strata=st.dictionaries(
        st.text(max_size=3), st.sampled_from(["a", "b", "c"]), min_size=2, max_size=40
    ),
    held_out=st.floats(0, 1),
    seed=st.integers(0, 2**32),
)
def test_each_stratum_gives_its_share_and_the_number_stays(
    strata: dict[str, str], held_out: float, seed: int
) -> None:
    plain = split_subjects(strata, held_out=held_out, seed=seed)
    sides = split_subjects(strata, held_out=held_out, seed=seed, strata=strata)
    total = list(plain.values()).count(HELD_OUT)
    assert set(sides) == set(strata)
    assert list(sides.values()).count(HELD_OUT) == total
    for name in set(strata.values()):
        people = [person for person in strata if strata[person] == name]
        due = total * len(people) / len(strata)
        count = sum(sides[person] == HELD_OUT for person in people)
        assert int(due) <= count <= -int(-due // 1)


def test_a_stratified_split_goes_by_the_seed_alone() -> None:
    strata = {person: "patient" if i < 20 else "control" for i, person in enumerate(SUBJECTS)}
    first = split_subjects(SUBJECTS, held_out=0.2, seed=0, strata=strata)
    backwards = dict(reversed(strata.items()))
    assert split_subjects(SUBJECTS[::-1], held_out=0.2, seed=0, strata=backwards) == first
    assert split_subjects(SUBJECTS, held_out=0.2, seed=1, strata=strata) != first
    assert [first[person] for person in SUBJECTS[:20]].count(HELD_OUT) == 4
    assert list(first.values()).count(HELD_OUT) == 20


def test_one_stratum_is_as_none() -> None:
    whole = split_subjects(SUBJECTS, held_out=0.3, seed=5)
    assert (
        split_subjects(SUBJECTS, held_out=0.3, seed=5, strata=dict.fromkeys(SUBJECTS, "all"))
        == whole
    )


def test_the_plain_split_is_the_one_that_it_was() -> None:
    """Splits that were stored must not change with the code."""
    sides = split_subjects(SUBJECTS[:10], held_out=0.3, seed=0)
    assert [person for person in sides if sides[person] == HELD_OUT] == PINNED


def test_a_subject_without_a_stratum_is_named() -> None:
    with pytest.raises(ValueError, match="1 subjects have no stratum, for example 'sub-001'"):
        split_subjects(SUBJECTS[:2], held_out=0.5, seed=0, strata={"sub-000": "a"})


def person(subject: str, **covariates: Any) -> Record:
    return Record(0, subject, subject, "", [], [], [], [], covariates, None, "")


def test_strata_are_names_and_thirds_of_numbers_and_what_is_missing() -> None:
    records = [person(f"p{n}", age=float(n), sex="FM"[n % 2]) for n in range(9)]
    records += [person("q", age=None, sex=None), person("p0", age=8.0, sex="F")]
    strata = strata_of(records, ["sex", "age"])
    assert strata is not None
    assert (strata["p0"], strata["p1"], strata["p4"], strata["p8"]) == ("F·0", "M·0", "F·1", "F·2")
    assert strata["q"] == "None·None"
    assert strata_of(records, []) is None


def test_a_stratum_that_nobody_has_is_an_error() -> None:
    with pytest.raises(ParamsError, match=r"ingest\.stratify: no scan has the covariate 'site'"):
        strata_of([person("p", age=1.0)], ["site"])
