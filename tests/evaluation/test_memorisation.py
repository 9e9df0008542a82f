from collections.abc import Callable, Iterator
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vqmri.evaluation import memorisation
from vqmri.evaluation.memorisation import (
    Share,
    correlations,
    distances,
    longest_shared_run,
    share_nearer,
    share_trained,
)

Measure = Callable[..., Share]


def volumes(count: int, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return (5 + random.normal(size=(count, 2, 4, 3, 2))).astype(np.float32)


def whole(items: np.ndarray) -> Callable[[], list[np.ndarray]]:
    return lambda: [items]


def test_correlations_are_numpys_of_every_pair() -> None:
    items, known = volumes(4), volumes(7, seed=1)
    found = correlations(whole(items), whole(known))
    for i, item in enumerate(items):
        for k, other in enumerate(known):
            expected = np.corrcoef(item.ravel(), other.ravel())[0, 1]
            assert found[i, k] == pytest.approx(expected, abs=1e-6)


def test_the_most_alike_is_a_copy_whatever_its_scale_and_no_negative() -> None:
    known = volumes(5)
    items = np.stack([3 * known[4] - 7, known[2], -known[0]])
    found = correlations(whole(items), whole(known))
    values, indices = found.max(axis=1), found.argmax(axis=1)
    assert indices[:2].tolist() == [4, 2]
    assert values[:2] == pytest.approx([1, 1], abs=1e-6)
    others = [np.corrcoef(-known[0].ravel(), other.ravel())[0, 1] for other in known]
    assert indices[2] == np.argmax(others) != 0
    assert values[2] == pytest.approx(max(others), abs=1e-6)
    assert values.max() <= 1


def test_a_constant_volume_is_like_nothing() -> None:
    known = volumes(3)
    for constant in (0.0, 0.1, 1e4):
        items = np.full((1, 2, 4, 3, 2), constant)
        assert correlations(whole(items), whole(known)).tolist() == [[0, 0, 0]]
        assert correlations(whole(known), whole(items)).tolist() == [[0], [0], [0]]


def test_chunks_change_nothing() -> None:
    items, known = volumes(5), volumes(7, seed=1)
    expected = correlations(whole(items), whole(known))

    def some() -> Iterator[np.ndarray]:
        yield items[:2]
        yield items[2:]

    def others() -> Iterator[np.ndarray]:
        yield known[:1]
        yield known[1:6]
        yield known[6:]

    assert correlations(some, others) == pytest.approx(expected, abs=1e-6)
    assert correlations(whole(items), others) == pytest.approx(expected, abs=1e-6)


def test_what_is_known_is_read_once_for_all_items_that_memory_holds(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    items, known, readings = volumes(9), volumes(4, seed=1), []

    def read() -> list[np.ndarray]:
        readings.append(len(known))
        return [known[:3], known[3:]]

    def in_threes() -> list[np.ndarray]:
        return [items[:3], items[3:6], items[6:]]

    expected = correlations(in_threes, read)
    assert readings == [4]
    monkeypatch.setattr(memorisation, "_VALUES_AT_ONCE", items[:6].size)
    assert correlations(in_threes, read) == pytest.approx(expected, abs=1e-6)
    assert readings == [4, 4, 4]


def test_distances_are_those_of_a_double_loop() -> None:
    random = np.random.default_rng(0)
    items, known = random.normal(size=(6, 3)), random.normal(size=(9, 3))
    items[2] = known[5]
    known[7] = known[5]
    matrix = [[float(np.sqrt(((a - b) ** 2).sum())) for b in known] for a in items]
    assert distances(items, known) == pytest.approx(np.array(matrix))
    assert distances(items, known)[2, 5] == 0


def longest_by_hand(codes: np.ndarray, known: np.ndarray) -> list[int]:
    found = []
    for item in codes:
        best = 0
        for other in known:
            run = 0
            for a, b in zip(item.ravel(), other.ravel(), strict=True):
                run = run + 1 if a == b else 0
                best = max(best, run)
        found.append(best)
    return found


@given(
    st.sampled_from([(4, 5), (3, 2, 2), (7,)]),
    st.integers(1, 3),
    st.integers(1, 6),
    st.integers(0, 99),
)
def test_the_longest_run_is_that_of_a_triple_loop(
    grid: tuple[int, ...], number: int, count: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    codes = random.integers(number, size=(5, *grid)).astype(np.uint16)
    known = random.integers(number, size=(count, *grid))
    assert longest_shared_run(codes, known).tolist() == longest_by_hand(codes, known)


def test_a_run_goes_on_in_raster_order_and_stays_with_one_known_item() -> None:
    item = np.array([[[1, 2, 3], [4, 5, 6]]])
    one = np.array([[0, 2, 3], [4, 0, 6]])  # 2 3 4, over the end of a row
    other = np.array([[1, 0, 0], [0, 5, 6]])
    assert longest_shared_run(item, np.stack([other, one])).tolist() == [3]
    assert longest_shared_run(item, item + 1).tolist() == [0]
    assert longest_shared_run(item, np.concatenate([item, item])).tolist() == [6]
    assert longest_shared_run(item, item[:0]).tolist() == [0]
    assert longest_shared_run(item[:0], item).shape == (0,)


def test_chunks_do_not_change_the_longest_run(monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    codes, known = random.integers(2, size=(7, 40)), random.integers(2, size=(11, 40))
    monkeypatch.setattr(memorisation, "_ITEMS_PER_CHUNK", 2)
    monkeypatch.setattr(memorisation, "_KNOWN_PER_CHUNK", 3)
    assert longest_shared_run(codes, known).tolist() == longest_by_hand(codes, known)


def share_by_hand(matrix: np.ndarray, members: np.ndarray, subjects: list[str]) -> float:
    """All draws of equally many subjects of both sides, one by one."""
    sides = [sorted({s for s, m in zip(subjects, members, strict=True) if m == w}) for w in (1, 0)]
    k = min(map(len, sides))
    scores = []
    for inner in combinations(sides[0], k):
        for outer in combinations(sides[1], k):
            for row in matrix:
                a = min(d for d, s in zip(row, subjects, strict=True) if s in inner)
                b = min(d for d, s in zip(row, subjects, strict=True) if s in outer)
                scores.append(0.5 if a == b else float(a < b))
    return float(np.mean(scores))


@pytest.mark.parametrize("trained", [3, 4, 6])
@pytest.mark.parametrize("levels", [4, 1000])
def test_the_share_is_the_mean_over_all_draws_of_equally_many_subjects(
    trained: int, levels: int
) -> None:
    random = np.random.default_rng(trained)
    subjects = [f"s{i}" for i in (0, 1, 2, 3, 4, 5, 6, 7, 1, 7, 7, 0)]  # some have several scans
    members = np.array([int(s[1:]) < trained for s in subjects])
    matrix = random.integers(levels, size=(5, 12)) / levels  # few levels: many ties
    found = share_nearer(matrix, members, subjects, seed=0, repeats=20)
    assert found.value == pytest.approx(share_by_hand(matrix, members, subjects))
    order = random.permutation(12)
    again = share_nearer(
        matrix[:, order], members[order], [subjects[i] for i in order], seed=0, repeats=20
    )
    assert again == found


@pytest.mark.parametrize("share", [share_nearer, share_trained])
def test_scans_of_one_subject_count_as_one(share: Measure) -> None:
    random = np.random.default_rng(0)
    matrix, members = random.random((9, 6)), np.array([True] * 4 + [False] * 2)
    subjects = list("abcdef")
    once = share(matrix, members, subjects, seed=0, repeats=50)
    more, sides = (
        np.concatenate([matrix, matrix[:, :2] + 5], axis=1),
        np.append(members, [True] * 2),
    )
    assert share(more, sides, [*subjects, "a", "b"], seed=0, repeats=50) == once
    assert share(more, sides, [*subjects, "c", "g"], seed=0, repeats=50) != once


def test_samples_of_which_training_scans_are_nearest_of_all() -> None:
    random = np.random.default_rng(0)
    subjects = [f"s{i}" for i in (0, 1, 2, 3, 4, 5, 6, 7, 1, 7, 7, 0)]
    members = np.array([int(s[1:]) < 5 for s in subjects])
    matrix = random.integers(3, size=(9, 12)) / 3
    by_hand = []
    for row in matrix:
        sides = {bool(m) for d, m in zip(row, members, strict=True) if d == row.min()}
        by_hand.append(np.mean([float(side) for side in sides]))
    found = share_trained(matrix, members, subjects, seed=0, repeats=20)
    assert found.value == pytest.approx(np.mean(by_hand))
    assert 0.5 in by_hand


def test_copies_of_training_scans_are_found_and_fresh_draws_are_not() -> None:
    random = np.random.default_rng(0)
    known = random.normal(size=(60, 20))
    members, subjects = np.arange(60) < 45, [str(i) for i in range(60)]

    def both(samples: np.ndarray) -> list[Share]:
        matrix = distances(samples, known)
        measures = share_nearer, share_trained
        return [share(matrix, members, subjects, seed=0, repeats=200) for share in measures]

    nearer, trained = both(known[:45] + 0.1 * random.normal(size=(45, 20)))
    assert nearer.value == pytest.approx(0.5 + 15 / 90, abs=0.08)
    assert nearer.chance == pytest.approx(0.5, abs=0.02)
    assert trained.value == trained.low == 1
    assert trained.chance == pytest.approx(0.75, abs=0.02)
    assert trained.chance_low < 0.75 < trained.chance_high < 1
    for found in both(random.normal(size=(40, 20))):
        assert found.low < found.value < found.high
        assert found.chance_low < found.value < found.chance_high
    for found in both(known[45:] + 0.1 * random.normal(size=(15, 20))):
        assert found.value == 0 < found.chance_low


def test_one_subject_that_is_near_to_all_samples_is_no_finding() -> None:
    # the samples agree, so that their own interval is narrow, but one subject decides for them all
    matrix, subjects = np.random.default_rng(0).random((50, 40)), [str(i) for i in range(40)]
    matrix[:, 0] = -1
    found = share_trained(matrix, np.arange(40) < 30, subjects, seed=0, repeats=200)
    assert found.value == found.low == found.high == found.chance_high == 1
    assert found.chance_low == 0
    assert found.chance == pytest.approx(0.75, abs=0.1)


@pytest.mark.parametrize("share", [share_nearer, share_trained])
def test_equal_distances_are_half_and_equal_seeds_equal(share: Measure) -> None:
    members, subjects = np.array([True, True, True, False]), list("abcd")
    assert set(share(np.ones((5, 4)), members, subjects, seed=0, repeats=20)) == {0.5}
    matrix = np.random.default_rng(0).random((6, 4))
    before = np.random.get_state()[1].tolist()  # type: ignore[index]  # noqa: NPY002
    one, same, other = (
        share(matrix, members, subjects, seed=seed, repeats=19) for seed in (1, 1, 2)
    )
    assert one == same != other
    assert before == np.random.get_state()[1].tolist()  # type: ignore[index]  # noqa: NPY002


@pytest.mark.parametrize(
    ("members", "subjects"),
    [([True, True, False], "aba"), ([True, True, True], "abc"), ([False, False, False], "abc")],
    ids=["a subject on both sides", "none held out", "none trained on"],
)
def test_sides_that_cannot_be_compared_are_refused(members: list[bool], subjects: str) -> None:
    with pytest.raises(ValueError, match="of one side"):
        share_nearer(np.ones((2, 3)), np.array(members), list(subjects), seed=0)
