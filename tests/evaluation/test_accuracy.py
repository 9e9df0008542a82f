import numpy as np
import pytest
import torch

from vqmri.errors import DivergedError
from vqmri.evaluation.accuracy import Classifier, accuracy, predict, train_classifier


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


@pytest.mark.parametrize("space", [(12, 9), (8, 6, 7)])
def test_learns_an_easy_problem_in_2d_and_3d(space: tuple[int, ...]) -> None:
    volumes, labels = problem(space, 300, seed=0)
    model = train_classifier(volumes, labels, 3, steps=150, seed=0, batch_size=32)
    unseen, truth = problem(space, 101, seed=1)
    assert not model.training
    assert accuracy(predict(model, unseen, batch_size=32), truth) > 0.95


@pytest.mark.parametrize("space", [(6, 6), (4, 6, 2)])
def test_equal_seeds_give_equal_weights_and_leave_the_random_state(space: tuple[int, ...]) -> None:
    volumes, labels = problem(space, 20, seed=0)
    states = []
    for seed in (5, 5, 6):
        before = torch.random.get_rng_state()
        model = train_classifier(volumes, labels, 3, steps=3, seed=seed, batch_size=8)
        assert torch.equal(torch.random.get_rng_state(), before)
        torch.rand(1)  # another state outside must not matter
        states.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


def test_size_is_as_said_and_any_grid_goes() -> None:
    assert sum(p.numel() for p in Classifier(2, 1, 10).parameters()) == pytest.approx(117e3, 0.01)
    for space in [(1, 1), (5, 3), (1, 1, 1), (2, 3, 17)]:
        volumes = np.random.default_rng(0).random((2, 3, *space))
        assert predict(Classifier(len(space), 3, 4), volumes).shape == (2,)


def test_batches_cover_every_item_in_order() -> None:
    volumes, _ = problem((6, 6), 11, seed=0)
    model = Classifier(2, 1, 3).eval()
    one_by_one = [int(predict(model, volume[None])[0]) for volume in volumes]
    assert predict(model, volumes, batch_size=4).tolist() == one_by_one
    assert predict(model, volumes[:0]).shape == (0,)


def test_labels_of_any_integer_type_and_steps_that_are_told() -> None:
    volumes, labels = problem((6, 6), 5, seed=0)
    told: list[int] = []
    train_classifier(
        volumes, labels.astype(np.uint8), 3, steps=4, seed=0, batch_size=8, progress=told.append
    )
    assert told == [1, 1, 1, 1]


def test_volumes_that_are_not_finite_stop_the_training() -> None:
    volumes, labels = problem((6, 6), 5, seed=0)
    volumes[2] = np.nan
    with pytest.raises(DivergedError, match="classifier: the loss is nan at step 0"):
        train_classifier(volumes, labels, 3, steps=2, seed=0, batch_size=8)


def test_accuracy_is_the_share_that_is_right() -> None:
    assert accuracy(np.array([0, 1, 2, 2]), np.array([0, 1, 1, 2], np.uint8)) == 0.75
    assert np.isnan(accuracy(np.array([], np.int64), np.array([], np.int64)))
