import numpy as np
import pytest
import torch

from vqmri.errors import DivergedError
from vqmri.evaluation.reconstruction import dice_of_labels
from vqmri.evaluation.segmentation import (
    Segmenter,
    mean_dice,
    segment,
    train_segmenter,
)


def blobs(space: tuple[int, ...], count: int, seed: int) -> np.ndarray:
    """A bright ball (1) with a dark core (2), anywhere, in noise; the label map comes last."""
    random = np.random.default_rng(seed)
    volumes = np.empty((count, 2, *space), np.float32)
    for volume in volumes:
        centre = [random.uniform(5, n - 6) for n in space]
        axes = np.meshgrid(*(np.arange(n) for n in space), indexing="ij")
        distance = np.sqrt(sum((axis - c) ** 2 for axis, c in zip(axes, centre, strict=True)))
        volume[1] = np.select([distance < 2.5, distance < 5], [2, 1], 0)
        volume[0] = np.choose(volume[1].astype(int), [0.5, 0.9, 0.1])
        volume[0] += random.normal(0, 0.05, space)
    return np.clip(volumes, 0, 2)


@pytest.mark.parametrize(("space", "steps"), [((20, 18), 100), ((16, 16, 16), 60)])
def test_learns_blobs_in_2d_and_3d(space: tuple[int, ...], steps: int) -> None:
    model = train_segmenter(blobs(space, 12, seed=0), 3, steps=steps, seed=0, batch_size=4)
    assert not model.training
    unseen = blobs(space, 4, seed=1)
    found = segment(model, unseen[:, :-1])
    assert found.shape == (4, *space)
    scores = [dice_of_labels(f, v[-1], [1, 2]) for f, v in zip(found, unseen, strict=True)]
    assert mean_dice(np.stack(scores)) > 0.75


def test_equal_seeds_give_equal_weights_and_leave_the_random_state() -> None:
    volumes = blobs((16, 16), 5, seed=0)
    states = []
    for seed in (5, 5, 6):
        before = torch.random.get_rng_state()
        model = train_segmenter(volumes, 3, steps=2, seed=seed, batch_size=2)
        assert torch.equal(torch.random.get_rng_state(), before)
        torch.rand(1)  # another state outside must not matter
        states.append(torch.cat([p.detach().flatten() for p in model.parameters()]))
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


@pytest.mark.parametrize("space", [(28, 28), (3, 5), (1, 1), (18, 6, 7)])
def test_any_grid_goes(space: tuple[int, ...]) -> None:
    model = Segmenter(len(space), 2, 4)
    logits = model(torch.rand(2, 2, *space))
    assert logits.shape == (2, 4, *space)
    logits.sum().backward()


def test_size_is_as_said() -> None:
    assert sum(p.numel() for p in Segmenter(3, 1, 3).parameters()) == pytest.approx(283e3, 0.01)


def test_volumes_that_are_not_finite_stop_the_training() -> None:
    volumes = blobs((16, 16), 2, seed=0)
    volumes[:, 0, 8, 8] = np.nan
    with pytest.raises(DivergedError, match="segmenter: the loss is nan at step 0"):
        train_segmenter(volumes, 3, steps=2, seed=0, batch_size=2)


def test_dice_of_each_label_by_hand() -> None:
    true = np.array([[0, 1, 1], [2, 2, 2]])
    said = np.array([[1, 1, 0], [2, 2, 0]])
    found = dice_of_labels(said, true, [1, 2, 3])
    assert found[:2] == pytest.approx([2 * 1 / (2 + 2), 2 * 2 / (2 + 3)])
    assert np.isnan(found[2])
    assert dice_of_labels(np.zeros(3), np.array([0, 0, 4]), [4]).tolist() == [0]


def test_the_mean_is_of_scans_each_of_the_labels_it_has() -> None:
    scores = np.array([[1.0, 0.5], [np.nan, 0.25], [np.nan, np.nan]])
    assert mean_dice(scores) == pytest.approx((0.75 + 0.25) / 2)
    assert np.isnan(mean_dice(scores[2:]))
