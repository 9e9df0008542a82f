from typing import Any

import numpy as np
import pytest

from vqmri.evaluation.intervals import bootstrap, subsampled

both = pytest.mark.parametrize("method", [bootstrap, subsampled])


def mean(x: np.ndarray) -> float:
    return float(x.mean())


@both
def test_the_ends_are_those_of_the_normal_approximation(method: Any) -> None:
    sample = np.random.default_rng(0).standard_normal(200)
    half = 1.96 * sample.std() / np.sqrt(200)
    found = method(mean, sample, seed=0, repeats=3000)
    assert found.value == sample.mean()
    assert found.low == pytest.approx(sample.mean() - half, abs=0.1 * half)
    assert found.high == pytest.approx(sample.mean() + half, abs=0.1 * half)
    wider = method(mean, sample, seed=0, repeats=3000, level=0.99)
    assert wider.high - wider.low == pytest.approx(2 * half * 2.576 / 1.96, rel=0.12)


@both
def test_19_of_20_intervals_hold_the_truth(method: Any) -> None:
    held = 0
    for seed in range(200):
        sample = np.random.default_rng(seed).standard_normal(38) + 3
        found = method(mean, sample, seed=seed, repeats=100)
        held += found.low <= 3 <= found.high
    assert 0.89 <= held / 200 <= 0.98


@pytest.mark.parametrize("share", [0.2, 0.5, 0.8])
def test_the_share_that_is_drawn_does_not_change_the_width(share: float) -> None:
    sample = np.random.default_rng(0).standard_normal(100)
    found = subsampled(mean, sample, seed=0, share=share, repeats=2000)
    assert found.high - found.low == pytest.approx(2 * 1.96 * sample.std() / 10, rel=0.1)


@both
def test_items_of_one_group_are_drawn_together(method: Any) -> None:
    """Every subject has four equal scans: the error is that of the subjects' means."""
    subjects = np.random.default_rng(0).standard_normal(60)
    names = np.array([f"sub-{i}" for i in range(60)])
    order = np.random.default_rng(1).permutation(240)
    sample, groups = np.tile(subjects, 4)[order], np.tile(names, 4)[order]
    grouped = method(mean, sample, seed=0, groups=[groups], repeats=2000)
    single = method(mean, sample, seed=0, repeats=2000)
    expected = 2 * 1.96 * subjects.std() / np.sqrt(60)
    assert grouped.high - grouped.low == pytest.approx(expected, rel=0.1)
    assert single.high - single.low == pytest.approx(expected / 2, rel=0.1)


@both
def test_several_samples_are_drawn_apart(method: Any) -> None:
    a, b = np.random.default_rng(0).standard_normal((2, 300))
    found = method(lambda x, y: mean(x) - mean(y), a, b[:100], seed=0, repeats=2000)
    expected = 2 * 1.96 * np.sqrt(a.var() / 300 + b[:100].var() / 100)
    assert found.high - found.low == pytest.approx(expected, rel=0.1)


@both
def test_rows_stay_whole_and_groups_too(method: Any) -> None:
    sample = np.arange(12).reshape(6, 2)
    seen: list[np.ndarray] = []

    def look(rows: np.ndarray) -> float:
        seen.append(rows)
        return 0.0

    method(look, sample, seed=0, groups=[np.array([1, 0, 1, 2, 2, 0])], repeats=50)
    drawn = [rows for rows in seen if rows is not sample]
    assert len(drawn) == 50
    for rows in drawn:
        assert (rows[:, 1] == rows[:, 0] + 1).all()
        first = rows[:, 0].tolist()
        assert all(first.count(x) == first.count(y) for x, y in [(0, 4), (2, 10), (6, 8)])
    if method is subsampled:  # 1 of 3 groups, and nothing twice
        assert {len(rows) for rows in drawn} == {2}
        assert all(len(np.unique(rows[:, 0])) == len(rows) for rows in drawn)
    else:
        assert any(len(np.unique(rows[:, 0])) < len(rows) for rows in drawn)


@both
def test_groups_may_be_of_any_size(method: Any) -> None:
    found = method(mean, np.arange(6.0), seed=0, groups=[np.array([0, 1, 1, 1, 2, 2])])
    assert found.low < found.value < found.high


@both
def test_the_seed_decides(method: Any) -> None:
    sample = np.random.default_rng(0).standard_normal(20)
    assert method(mean, sample, seed=1) == method(mean, sample, seed=1)
    assert method(mean, sample, seed=1) != method(mean, sample, seed=2)


@both
def test_a_constant_has_no_width_and_draws_without_a_figure_are_left_out(method: Any) -> None:
    assert method(mean, np.full(9, 2.5), seed=0) == (2.5, 2.5, 2.5)
    sample = np.arange(10.0)
    some = method(lambda x: x.mean() if 0 in x else np.nan, sample, seed=0)
    assert some.low < some.value < some.high
    none = method(lambda x: np.inf, sample, seed=0)
    assert none.value == np.inf
    assert np.isnan(none[1:]).all()


@both
def test_one_item_or_one_group_has_no_interval(method: Any) -> None:
    for sample, groups in ((np.array([4.0]), None), (np.array([3.0, 5.0]), [np.array(["a", "a"])])):
        found = method(mean, sample, seed=0, groups=groups)
        assert found.value == 4
        assert np.isnan(found[1:]).all()


@both
def test_faulty_samples_are_refused(method: Any) -> None:
    with pytest.raises(ValueError, match="no items"):
        method(mean, np.zeros(0), seed=0)
    with pytest.raises(ValueError, match="3 groups named for 4 items"):
        method(mean, np.zeros(4), seed=0, groups=[np.zeros(3)])
