from itertools import product
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import mannwhitneyu

from vqmri.evaluation.membership import Membership, auc, flagged, membership, true_positives


def names(side: str, count: int) -> list[str]:
    return [f"{side}{i}" for i in range(count)]


def attack(
    members: np.ndarray, others: np.ndarray, *, seed: int = 0, repeats: int = 300
) -> Membership:
    """With every item a subject of its own."""
    sides = names("m", len(members)), names("o", len(others))
    return membership(members, others, *sides, seed=seed, repeats=repeats)


values = st.lists(st.integers(0, 6), min_size=1, max_size=9).map(lambda v: np.array(v) / 2)


@given(values, values)
def test_auc_is_that_of_all_pairs_and_scipys_u(members: np.ndarray, others: np.ndarray) -> None:
    by_hand = [0.5 if a == b else float(a < b) for a, b in product(members, others)]
    assert auc(members, others) == pytest.approx(np.mean(by_hand))
    u = mannwhitneyu(others, members).statistic  # how often the first is greater
    assert auc(members, others) == pytest.approx(u / len(members) / len(others))
    assert auc(members, others) + auc(others, members) == pytest.approx(1)


def test_extremes_of_auc() -> None:
    low, high = np.array([1.0, 2.0]), np.array([3.0, 4.0, 5.0])
    assert auc(low, high) == 1
    assert auc(high, low) == 0
    assert auc(low, low) == 0.5
    assert np.isnan(auc(low[:0], high))
    assert np.isnan(auc(low, high[:0]))


def test_true_positives_at_one_false_positive_of_ten() -> None:
    others = np.random.default_rng(0).permutation(20) + 0.0
    assert true_positives(np.array([0.5, 1.9, 2.0, 2.1, 9.0]), others) == 2 / 5  # below 0 1 |2
    assert true_positives(np.array([-1.0, 0.5]), others[others < 9]) == 1 / 2  # 9 others: none
    assert true_positives(others, others) == 0.1


def test_members_that_are_likelier_are_told_and_flagged() -> None:
    random = np.random.default_rng(0)
    found = attack(random.normal(5, 1, size=160), random.normal(6.5, 1, size=38))
    assert 0.75 < found.low < found.auc < found.high < 1
    assert found.control_low < found.control < found.control_high < found.low
    assert found.control == pytest.approx(0.5, abs=0.02)
    assert found.p_value == 1 / 301
    assert found.true_positives > 0.4
    assert flagged(found, 0.6)
    assert not flagged(found, 0.99)


def test_equal_distributions_are_flagged_at_most_as_often_as_the_level_says() -> None:
    flags = 0
    for seed in range(100):
        random = np.random.default_rng(seed)
        found = attack(random.normal(size=20), random.normal(size=9), repeats=39)
        flags += flagged(found, 0.5)
    assert 0 < flags <= 11  # 5 expected; more than 11 once in 200


def test_the_interval_holds_the_true_auc_about_as_often_as_it_says() -> None:
    held = 0
    for seed in range(50):
        random = np.random.default_rng(seed)
        found = attack(random.normal(0, 1, size=40), random.normal(1, 1, size=30), repeats=100)
        held += found.low <= 0.7602 <= found.high  # Φ(1 / √2)
    assert held >= 43


def test_four_members_below_all_others_are_flagged_without_a_control() -> None:
    found = attack(np.arange(4.0), np.arange(10.0, 48.0), repeats=1000)
    assert (found.auc, found.low, found.high, found.true_positives) == (1, 1, 1, 1)
    assert np.isnan([found.control, found.control_low, found.control_high]).all()
    assert found.p_value == 1 / 1001
    assert flagged(found, 0.9)
    one = attack(np.array([0.0]), np.arange(10.0, 18.0))  # p = 1 / 9 at best
    assert one.auc == 1
    assert not flagged(one, 0.5)


def test_the_p_value_is_scipys_exact_one() -> None:
    random = np.random.default_rng(3)
    members, others = random.normal(0, 1, size=8), random.normal(0.5, 1, size=10)
    exact = mannwhitneyu(members, others, alternative="less", method="exact").pvalue
    assert 0.01 < exact < 0.3
    assert attack(members, others, repeats=2000).p_value == pytest.approx(exact, abs=0.02)
    best = attack(np.arange(2.0), np.arange(5.0, 9.0), repeats=2000).p_value
    assert best == pytest.approx(1 / comb(6, 2), abs=0.02)


def test_the_control_is_of_as_many_training_subjects_as_are_held_out() -> None:
    # 3 subjects, 1 held out: the two that are left against the third, in three equal cases
    members = np.array([1.0, 2.0, 3.0])
    found = attack(members, np.array([9.0]), repeats=1000)
    cases = [auc(np.delete(members, i), members[i : i + 1]) for i in range(3)]
    assert found.control == pytest.approx(np.mean(cases), abs=0.04)
    assert (found.control_low, found.control_high) == (min(cases), max(cases))


def test_scans_of_a_subject_move_together() -> None:
    # two scans of each person on both sides, with the same bits
    random = np.random.default_rng(0)
    members, others = random.normal(0, 1, size=12), random.normal(1, 1, size=6)
    once = attack(members, others)
    doubled = np.repeat(members, 2), np.repeat(others, 2)
    people = (
        [name for name in names("m", 12) for _ in "ab"],
        [name for name in names("o", 6) for _ in "ab"],
    )
    together = membership(*doubled, *people, seed=0, repeats=300)
    assert together[:7] == once[:7]
    apart = attack(*doubled)
    assert apart.auc == once.auc
    assert apart.high - apart.low < once.high - once.low
    assert apart.p_value < once.p_value


def test_equal_seeds_give_equal_figures() -> None:
    random = np.random.default_rng(0)
    members, others = random.normal(size=12), random.normal(size=6)
    assert attack(members, others, seed=1) == attack(members, others, seed=1)
    assert attack(members, others, seed=1) != attack(members, others, seed=2)


@pytest.mark.parametrize(
    ("members", "others"), [(["a", "b"], ["b"]), ([], ["a"]), (["a"], [])], ids=str
)
def test_sides_that_cannot_be_compared_are_refused(members: list[str], others: list[str]) -> None:
    with pytest.raises(ValueError, match="of one side"):
        membership(np.ones(len(members)), np.ones(len(others)), members, others, seed=0)
