import numpy as np
import pytest
import torch
from scipy import stats

from vqmri.errors import DivergedError
from vqmri.evaluation.accuracy import (
    Items,
    Recogniser,
    accuracy,
    chance,
    mean_absolute_error,
    obedience,
    outputs,
    r_squared,
    relative,
    train_recogniser,
)


def problem(space: tuple[int, ...], count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Three classes: a bar along the first or the last axis, or none, anywhere, in noise."""
    random = np.random.default_rng(seed)
    volumes = 0.3 * random.random((count, 1, *space), dtype=np.float32)
    labels = random.integers(3, size=count)
    for volume, label in zip(volumes, labels, strict=True):
        bar: list[int | slice] = [int(random.integers(n)) for n in space]
        if label < 2:
            bar[-int(label)] = slice(None)
            volume[0, *bar] = 1
    return volumes, labels


def predict(model: Recogniser, volumes: Items, batch_size: int = 128) -> np.ndarray:
    return outputs(model, volumes, batch_size=batch_size).argmax(axis=1)


@pytest.mark.parametrize("space", [(12, 9), (8, 6, 7)])
def test_learns_an_easy_problem_in_2d_and_3d(space: tuple[int, ...]) -> None:
    volumes, labels = problem(space, 300, seed=0)
    model = train_recogniser(volumes, labels, 3, steps=150, seed=0, batch_size=32)
    unseen, truth = problem(space, 101, seed=1)
    assert not model.training
    assert accuracy(predict(model, unseen, batch_size=32), truth) > 0.95


@pytest.mark.parametrize("space", [(6, 6), (4, 6, 2)])
def test_equal_seeds_give_equal_weights_and_leave_the_random_state(space: tuple[int, ...]) -> None:
    volumes, labels = problem(space, 20, seed=0)
    states = []
    for seed in (5, 5, 6):
        before = torch.random.get_rng_state()
        model = train_recogniser(volumes, labels, 3, steps=3, seed=seed, batch_size=8)
        assert torch.equal(torch.random.get_rng_state(), before)
        torch.rand(1)  # another state outside must not matter
        states.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


def test_size_is_as_said_and_any_grid_goes() -> None:
    assert sum(p.numel() for p in Recogniser(2, 1, 10).parameters()) == pytest.approx(117e3, 0.01)
    for space in [(1, 1), (5, 3), (1, 1, 1), (2, 3, 17)]:
        volumes = np.random.default_rng(0).random((2, 3, *space))
        assert predict(Recogniser(len(space), 3, 4), volumes).shape == (2,)


def test_batches_cover_every_item_in_order() -> None:
    volumes, _ = problem((6, 6), 11, seed=0)
    model = Recogniser(2, 1, 3).eval()
    one_by_one = [int(predict(model, volume[None])[0]) for volume in volumes]
    assert predict(model, volumes, batch_size=4).tolist() == one_by_one
    assert predict(model, volumes[:0]).shape == (0,)


def test_labels_of_any_integer_type_and_steps_that_are_told() -> None:
    volumes, labels = problem((6, 6), 5, seed=0)
    told: list[int] = []
    train_recogniser(
        volumes, labels.astype(np.uint8), 3, steps=4, seed=0, batch_size=8, progress=told.append
    )
    assert told == [1, 1, 1, 1]


def test_volumes_that_are_not_finite_stop_the_training() -> None:
    volumes, labels = problem((6, 6), 5, seed=0)
    volumes[2] = np.nan
    with pytest.raises(DivergedError, match="recogniser: the loss is nan at step 0"):
        train_recogniser(volumes, labels, 3, steps=2, seed=0, batch_size=8)


def test_accuracy_is_the_share_that_is_right() -> None:
    assert accuracy(np.array([0, 1, 2, 2]), np.array([0, 1, 1, 2], np.uint8)) == 0.75
    assert np.isnan(accuracy(np.array([], np.int64), np.array([], np.int64)))


def test_a_regression_learns_how_bright_a_picture_is() -> None:
    random = np.random.default_rng(0)
    level = random.random(120)
    volumes = np.clip(level[:, None, None, None] + random.normal(0, 0.1, (120, 1, 8, 8)), 0, 1)
    values = (level - 0.5) / 0.29
    model = train_recogniser(volumes[:80], values[:80], 0, steps=80, seed=0, batch_size=16)
    said = outputs(model, volumes[80:], batch_size=16)
    assert said.shape == (40, 1)
    assert r_squared(said[:, 0].astype(float), values[80:], values[:80].mean()) > 0.9


class Lazy:
    """Items that are read when they are asked for, and remember which were."""

    def __init__(self, volumes: np.ndarray) -> None:
        self._volumes, self.shape, self.asked = volumes, volumes.shape, list[int]()

    def __getitem__(self, indices: list[int], /) -> np.ndarray:
        self.asked += indices
        return self._volumes[indices]


def test_items_may_be_read_when_they_are_asked_for() -> None:
    volumes, labels = problem((6, 6), 5, seed=0)
    lazy = Lazy(volumes)
    assert isinstance(lazy, Items)
    one = train_recogniser(lazy, labels, 3, steps=2, seed=0, batch_size=5)
    other = train_recogniser(volumes, labels, 3, steps=2, seed=0, batch_size=5)
    assert sorted(lazy.asked) == sorted(list(range(5)) * 2)
    np.testing.assert_array_equal(outputs(one, lazy, batch_size=2), outputs(other, volumes))


def test_chance_is_the_most_frequent_class() -> None:
    assert chance(np.array([2, 0, 2, 2, 1])) == 0.6
    assert np.isnan(chance(np.array([], np.int64)))


@pytest.mark.parametrize(
    ("score", "real", "guess", "expected"),
    [(0.9, 0.9, 0.1, 1.0), (0.1, 0.9, 0.1, 0.0), (0.5, 0.9, 0.1, 0.5), (0.0, 0.75, 0.5, -2.0)],
)
def test_the_relative_score_is_1_like_real_data_and_0_at_chance(
    score: float, real: float, guess: float, expected: float
) -> None:
    assert relative(score, real, guess) == pytest.approx(expected)


def test_where_real_data_teach_nothing_there_is_no_relative_score() -> None:
    assert np.isnan(relative(0.6, 0.5, 0.5))


def test_r_squared_is_about_the_training_mean() -> None:
    values, said = np.array([1.0, 2.0, 4.0, 5.0]), np.array([1.5, 2.0, 3.0, 5.5])
    # 1 − (0.25 + 0 + 1 + 0.25) / (4 + 1 + 1 + 4) about their own mean, 3
    assert r_squared(said, values, 3.0) == pytest.approx(1 - 1.5 / 10)
    assert r_squared(np.full(4, 2.0), values, 2.0) == 0  # chance, whatever the held-out mean
    assert r_squared(values, values, 0.0) == 1
    assert np.isnan(r_squared(values, np.ones(4), 1.0))
    assert mean_absolute_error(said, values) == pytest.approx(0.5)
    assert np.isnan(mean_absolute_error(np.array([]), np.array([])))


def test_obedience_is_scipys_correlation_and_slope() -> None:
    random = np.random.default_rng(0)
    asked = random.normal(50, 10, 30)
    seen = 0.5 * asked + random.normal(0, 3, 30)
    line = stats.linregress(asked, seen)
    assert obedience(asked, seen) == pytest.approx((line.rvalue, line.slope))
    assert obedience(asked, np.full(30, 7.0)) == pytest.approx((0, 0))
    assert np.isnan(obedience(np.full(30, 7.0), seen)).all()
