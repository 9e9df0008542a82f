from collections import Counter

import pytest

from vqmri.training.batches import MAX_EPOCH_STEPS, batch_indices, epoch_steps, step_seed


def test_every_item_comes_once_before_any_comes_twice() -> None:
    row = [i for step in range(7) for i in batch_indices(step, 3, 7, seed=1)]
    for start in range(0, 21, 7):
        assert sorted(row[start : start + 7]) == list(range(7))


def test_passes_are_shuffled_each_in_its_own_way() -> None:
    first, second = (batch_indices(step, 20, 20, seed=1) for step in (0, 1))
    assert first != second
    assert first != list(range(20))
    assert first == batch_indices(0, 20, 20, seed=1)
    assert first != batch_indices(0, 20, 20, seed=2)


def test_a_batch_may_be_larger_than_the_data() -> None:
    assert Counter(batch_indices(0, 6, 3, seed=0)) == {0: 2, 1: 2, 2: 2}


def test_step_seeds_differ() -> None:
    assert len({step_seed(seed, step) for seed in range(3) for step in range(100)}) == 300


@pytest.mark.parametrize(
    ("count", "batch_size", "expected"),
    [(12, 4, 3), (13, 4, 4), (1, 128, 1), (400, 4, 100), (404, 4, 100), (60_000, 128, 100)],
)
def test_an_epoch_is_a_pass_over_the_data_or_the_most_that_a_row_waits_for(
    count: int, batch_size: int, expected: int
) -> None:
    assert MAX_EPOCH_STEPS == 100
    assert epoch_steps(count, batch_size) == expected
