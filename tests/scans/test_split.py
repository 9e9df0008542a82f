import pytest
from hypothesis import given
from hypothesis import strategies as st

from vqmri.scans.split import HELD_OUT, TRAIN, split_subjects

SUBJECTS = [f"sub-{number:03d}" for number in range(100)]


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
