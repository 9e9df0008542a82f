from typing import Any

import numpy as np
import pytest

from vqmri.scans.volume import Record, Volume, code_box, crop


def test_spacing_is_the_length_of_each_column() -> None:
    turn = np.array([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([0.5, 2.0, -3.0])
    affine[:3, 3] = [10, 20, 30]
    volume = Volume(np.zeros((1, 2, 3, 4), dtype=np.float32), affine)
    assert volume.spacing == pytest.approx((0.5, 2.0, 3.0))


def test_a_record_gives_its_box() -> None:
    record = Record(
        index=0,
        subject="one",
        source="one.nii",
        sha256="0" * 64,
        shape=[4, 4, 4],
        affine=np.eye(4).tolist(),
        normalised_affine=np.eye(4).tolist(),
        field_of_view=[[0, 4], [1, 3], [2, 4]],
        covariates={},
        label=None,
        split="train",
    )
    assert record.box == ((0, 4), (1, 3), (2, 4))


@pytest.mark.parametrize(
    ("box", "downsampling", "expected"),
    [
        (((0, 16), (0, 8)), 4, ((0, 4), (0, 2))),
        (((1, 16), (3, 5)), 4, ((0, 4), (0, 2))),
        (((4, 5), (7, 9)), 4, ((1, 2), (1, 3))),
        (((0, 15), (8, 9)), 8, ((0, 2), (1, 2))),
    ],
)
def test_code_box_holds_every_code_that_touches_the_box(
    box: tuple[tuple[int, int], ...], downsampling: int, expected: tuple[tuple[int, int], ...]
) -> None:
    assert code_box(box, downsampling) == expected
    for (start, stop), (first, last) in zip(box, expected, strict=True):
        touched = {voxel // downsampling for voxel in range(start, stop)}
        assert touched == set(range(first, last))


def test_crop_takes_the_last_axes() -> None:
    data: Any = np.arange(2 * 4 * 5).reshape(2, 4, 5)
    assert crop(((1, 3), (0, 2))) == (slice(1, 3), slice(0, 2))
    assert np.array_equal(data[..., *crop(((1, 3), (0, 2)))], data[:, 1:3, 0:2])
