from typing import Any

import pytest
import torch

from vqmri.training.augment import Augmentation, cut, shifted

CPU = torch.device("cpu")
NOTHING: dict[str, Any] = {"flips": [], "rotation": 0.0, "scaling": 0.0, "contrast": 0.0}


def volumes(labelled: bool) -> torch.Tensor:
    images = torch.rand(3, 1, 12, 16, 8)
    labels = torch.randint(3, (3, 1, 12, 16, 8)).float()
    return torch.cat([images, labels], dim=1) if labelled else images


@pytest.mark.parametrize("labelled", [False, True])
def test_nothing_asked_for_is_nothing_done(labelled: bool) -> None:
    before = volumes(labelled)
    vary = Augmentation(device=CPU, labelled=labelled, translation=[0.0] * 3, **NOTHING)
    torch.testing.assert_close(vary(before, [1, 2, 3]), before, atol=1e-5, rtol=0)


def test_what_is_done_to_an_item_depends_on_its_seed_alone() -> None:
    vary = Augmentation(
        device=CPU,
        labelled=True,
        flips=[0, 2],
        rotation=15,
        scaling=0.1,
        translation=[2.0] * 3,
        contrast=0.3,
    )
    before = volumes(labelled=True)
    torch.manual_seed(5)
    together = vary(before, [7, 8, 9])
    torch.manual_seed(6)
    alone = torch.cat([vary(before[i : i + 1], [7 + i]) for i in (2, 1, 0)]).flip(0)
    assert torch.equal(together, alone)
    assert not torch.equal(vary(before, [7, 8, 10])[2], together[2])
    assert torch.equal(vary(before, [7, 8, 10])[:2], together[:2])


def test_labels_stay_labels_and_intensities_stay_in_range() -> None:
    vary = Augmentation(
        device=CPU,
        labelled=True,
        flips=[1],
        rotation=30,
        scaling=0.3,
        translation=[3.0] * 3,
        contrast=1.0,
    )
    varied = vary(volumes(labelled=True), [1, 2, 3])
    assert set(varied[:, 1].unique().tolist()) == {0.0, 1.0, 2.0}
    assert varied[:, 0].min() >= 0
    assert varied[:, 0].max() <= 1


def test_image_and_label_are_moved_alike() -> None:
    label = torch.zeros(1, 1, 12, 16, 8)
    label[..., 3:8, 4:12, 2:6] = 1
    vary = Augmentation(
        device=CPU, labelled=True, flips=[0, 1, 2], rotation=20, scaling=0.2, translation=[2.0] * 3,
        contrast=0.0,
    )  # fmt: skip
    for seed in range(20):
        image, moved = vary(torch.cat([label, label], dim=1), [seed])[0]
        sure = (image < 0.12) | (image > 0.7)  # elsewhere the border is smeared
        assert torch.equal((image > 0.5)[sure], (moved == 1)[sure])
        assert moved.sum() > 0


def test_a_flip_is_a_mirror_in_half_of_the_items() -> None:
    vary = Augmentation(
        device=CPU, labelled=False, translation=[0.0] * 3, **(NOTHING | {"flips": [1]})
    )
    before = volumes(labelled=False)[:1]
    flipped = 0
    for seed in range(60):
        after = vary(before, [seed])
        mirrored = torch.allclose(after, before.flip(3), atol=1e-5)
        assert mirrored or torch.allclose(after, before, atol=1e-5)
        flipped += mirrored
    assert 15 < flipped < 45


def test_the_shift_is_in_voxels_and_brings_in_zeros() -> None:
    before = torch.ones(1, 1, 20, 20, 20)
    vary = Augmentation(device=CPU, labelled=False, translation=[4.0, 0.0, 0.0], **NOTHING)
    lost = [int((vary(before, [seed])[0, 0, :, 10, 10] < 0.5).sum()) for seed in range(40)]
    assert max(lost) in (3, 4)


def test_pictures_are_varied_too() -> None:
    vary = Augmentation(
        device=CPU,
        labelled=False,
        flips=[1],
        rotation=10,
        scaling=0.1,
        translation=[1.0, 1.0],
        contrast=0.2,
    )
    before = torch.rand(2, 3, 28, 28)
    assert vary(before, [1, 2]).shape == before.shape


def test_pieces_are_of_the_volume_and_everywhere() -> None:
    before = torch.arange(2 * 6 * 8 * 4).float().reshape(2, 1, 6, 8, 4)
    starts = set()
    for seed in range(200):
        piece = cut(before, [4, 4, 8], [seed, seed + 1000])
        assert piece.shape == (2, 1, 4, 4, 4)
        first = int(piece[0].min())
        start = (first // 32, first // 4 % 8)
        assert torch.equal(piece[0], before[0, :, start[0] : start[0] + 4, start[1] : start[1] + 4])
        starts.add(start)
    assert starts == {(x, y) for x in range(3) for y in range(5)}


@pytest.mark.parametrize("labelled", [False, True])
def test_without_rotation_and_scaling_shifts_are_of_whole_voxels(labelled: bool) -> None:
    vary = Augmentation(device=CPU, labelled=labelled, translation=[2.9, 1.0, 0.0], **NOTHING)
    before = volumes(labelled)
    seen = set()
    for seed in range(40):
        after = vary(before[:1], [seed])[0]
        matches = [
            (x, y)
            for x in range(-3, 4)
            for y in range(-2, 3)
            if torch.allclose(after, shifted(before[0], [x, y, 0]), atol=1e-6)
        ]
        assert len(matches) == 1
        seen |= set(matches)
    assert {x for x, _ in seen} == {-3, -2, -1, 0, 1, 2, 3}
    assert {y for _, y in seen} == {-1, 0, 1}


@pytest.mark.parametrize(
    ("shift", "most"), [(0.0, 0), (0.4, 1), (1.0, 1), (2.0000000004, 2), (2.1, 3)]
)
def test_a_shift_of_less_than_a_voxel_is_no_stillness(shift: float, most: int) -> None:
    vary = Augmentation(device=CPU, labelled=False, translation=[shift, 0.0, 0.0], **NOTHING)
    assert vary._shifts == [most, 0, 0]


def test_a_shifted_volume_is_0_where_nothing_was() -> None:
    volume = torch.arange(1.0, 7.0).reshape(1, 2, 3)
    assert shifted(volume, [0, 1])[0].tolist() == [[0, 1, 2], [0, 4, 5]]
    assert shifted(volume, [-1, -2])[0].tolist() == [[6, 0, 0], [0, 0, 0]]
    assert torch.equal(shifted(volume, [0, 0]), volume)
