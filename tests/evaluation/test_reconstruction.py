import math
from typing import Any

import numpy as np
import pytest
from monai.metrics import SSIMMetric
from scipy.ndimage import correlate1d
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from vqmri.evaluation import reconstruction
from vqmri.evaluation.reconstruction import (
    SSIM_WINDOW,
    dice,
    mae_in_view,
    ms_ssim_in_view,
    num_scales,
    pairwise_ms_ssim,
    psnr_in_foreground,
    psnr_in_view,
    psnr_per_label,
    ssim_in_view,
)

BOXES = [((0, 16), (0, 18), (0, 14)), ((3, 15), (2, 18), (1, 12))]


def pair(
    count: int = 2, channels: int = 1, space: tuple[int, ...] = (16, 18, 14)
) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    volumes = random.random((count, channels, *space), dtype=np.float32)
    noise = 0.1 * random.standard_normal(volumes.shape)
    return (volumes + noise).clip(0, 1).astype(np.float32), volumes


def test_psnr_equals_skimages_inside_the_field_of_view() -> None:
    predicted, volumes = pair()
    predicted[1, :, :3] = 1 - volumes[1, :, :3]  # outside the second box: must not count
    for i, box in enumerate(BOXES):
        view = tuple(slice(*pair) for pair in box)
        expected = peak_signal_noise_ratio(
            volumes[i, 0][view], predicted[i, 0][view], data_range=1.0
        )
        assert psnr_in_view(predicted, volumes, BOXES)[i] == pytest.approx(expected, abs=1e-4)


def test_psnr_of_the_foreground_counts_no_air() -> None:
    predicted, volumes = pair()
    volumes[0, 0][volumes[0, 0] < 0.3] = 0
    volumes[1] = 0
    predicted[0, 0][volumes[0, 0] == 0] = 1  # must not count
    found = psnr_in_foreground(predicted, volumes, BOXES, 0.05)
    inside = volumes[0, 0] > 0
    error = (predicted[0, 0][inside].astype(np.float64) - volumes[0, 0][inside]) ** 2
    assert found[0] == pytest.approx(-10 * math.log10(error.mean()), abs=1e-6)
    assert math.isnan(found[1])


def test_psnr_of_several_channels_is_of_their_common_error() -> None:
    predicted, volumes = pair(channels=3, space=(12, 13))
    boxes = [((0, 12), (0, 13))] * 2
    for found, one, other in zip(
        psnr_in_view(predicted, volumes, boxes), predicted, volumes, strict=True
    ):
        mse = np.square(one.astype(np.float64) - other).mean()
        assert found == pytest.approx(-10 * math.log10(mse), abs=1e-4)


def test_ssim_agrees_with_skimage() -> None:
    predicted, volumes = pair()
    for i, box in enumerate(BOXES):
        view = tuple(slice(*pair) for pair in box)
        expected = structural_similarity(
            volumes[i, 0][view],
            predicted[i, 0][view],
            data_range=1.0,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            truncate=SSIM_WINDOW // 2 / 1.5,
        )
        # skimage averages over the borders too, which MONAI leaves out by using valid windows
        assert ssim_in_view(predicted, volumes, BOXES)[i] == pytest.approx(expected, abs=0.02)


@pytest.mark.parametrize(("channels", "space"), [(1, (9, 10, 8)), (2, (9, 10, 8)), (3, (11, 12))])
@pytest.mark.parametrize("metric", [psnr_in_view, ssim_in_view, ms_ssim_in_view, mae_in_view])
def test_volumes_measured_together_have_the_figures_of_each_alone(
    metric: Any, channels: int, space: tuple[int, ...]
) -> None:
    """Three fields of view in turn; one of them has more volumes than are measured at once."""
    predicted, volumes = pair(90, channels, space)
    kinds = [
        tuple((0, n) for n in space),
        tuple((1, n) for n in space),
        tuple((0, n - 1) for n in space),
    ]
    boxes = [kinds[0] if i % 9 > 1 else kinds[i % 9 + 1] for i in range(90)]
    assert sum(box == kinds[0] for box in boxes) > 64
    found = metric(predicted, volumes, boxes)
    alone = [
        metric(predicted[i : i + 1], volumes[i : i + 1], boxes[i : i + 1])[0] for i in range(90)
    ]
    assert found == pytest.approx(alone, rel=1e-5)
    assert len({round(value, 6) for value in found}) > 80  # and they are told apart


def test_large_volumes_are_measured_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """SSIM's working memory is many times its batch: 28 GB for 64 brains at 1 mm."""
    sizes = []
    metric = SSIMMetric.__call__

    def counted(self: Any, y_pred: Any, y: Any) -> Any:
        sizes.append(len(y))
        return metric(self, y_pred=y_pred, y=y)

    predicted, volumes = pair(6, 1, (16, 16, 16))
    monkeypatch.setattr(SSIMMetric, "__call__", counted)
    monkeypatch.setattr(reconstruction, "_VALUES_PER_BATCH", 2 * 16**3)
    whole = tuple((0, 16) for _ in range(3))
    ssim_in_view(predicted, volumes, [whole] * 6)
    assert sizes == [2, 2, 2]
    diversity = pairwise_ms_ssim(volumes, 10, seed=0)
    monkeypatch.setattr(reconstruction, "_VALUES_PER_BATCH", 1)
    ssim_in_view(predicted, volumes, [whole] * 6)
    assert sizes[3:] == [1] * 6
    assert pairwise_ms_ssim(volumes, 10, seed=0) == pytest.approx(diversity, rel=1e-5)


def test_perfect_reconstruction() -> None:
    _, volumes = pair()
    assert ssim_in_view(volumes, volumes, BOXES) == pytest.approx([1, 1], abs=1e-5)
    assert np.isinf(psnr_in_view(volumes, volumes, BOXES)).all()


def test_a_field_of_view_smaller_than_the_window_alone_has_no_ssim() -> None:
    predicted, volumes = pair()
    boxes = [((0, 16), (0, SSIM_WINDOW - 1), (0, 14)), ((0, 16), (0, SSIM_WINDOW), (0, 14))]
    assert np.isnan(ssim_in_view(predicted, volumes, boxes)).tolist() == [True, False]
    assert np.isfinite(psnr_in_view(predicted, volumes, boxes)).all()


def test_dice_by_hand() -> None:
    true = np.array([0, 0, 1, 1, 1, 2, 2, 0])
    found = np.array([0, 1, 1, 1, 2, 2, 0, 0])
    # label 1: 3 and 3 voxels, 2 in both; label 2: 2 and 2 voxels, 1 in both
    assert dice(found, true) == pytest.approx((2 * 2 / 6 + 2 * 1 / 4) / 2)
    assert dice(true, found) == dice(found, true)
    assert dice(true, true) == 1


def test_a_label_that_one_side_lacks_has_a_dice_of_0_and_the_background_none() -> None:
    true, found = np.array([0, 1, 1, 0]), np.array([0, 1, 1, 3])
    assert dice(found, true) == pytest.approx((1 + 0) / 2)
    assert dice(np.zeros(4), np.array([0, 0, 0, 1])) == 0
    assert math.isnan(dice(np.zeros(4), np.zeros(4)))


def test_psnr_per_label_is_that_of_the_voxels_of_the_true_label() -> None:
    predicted, volumes = pair(channels=2)
    labels = np.random.default_rng(1).integers(3, size=(2, 16, 18, 14)).astype(np.float32)
    labels[1, 3:15, 2:18, 1:12][labels[1, 3:15, 2:18, 1:12] == 2] = 0  # 2 is outside the box alone
    predicted[0][:, labels[0] == 2] = volumes[0][:, labels[0] == 2]
    found = psnr_per_label(predicted, volumes, labels, BOXES, [1, 2])
    assert list(found) == [1, 2]
    for i, box in enumerate(BOXES):
        view = (..., *(slice(*pair) for pair in box))
        inside = labels[i][view] == 1
        error = predicted[i][view].astype(np.float64) - volumes[i][view]
        squared = [error[channel][inside] ** 2 for channel in (0, 1)]
        assert found[1][i] == pytest.approx(-10 * math.log10(np.mean(squared)))
    assert math.isinf(found[2][0])
    assert math.isnan(found[2][1])


def test_mae_by_hand() -> None:
    volumes = np.zeros((1, 1, 2, 3), np.float32)
    predicted = np.array([[[[0, 1, 0.5], [0.25, 0, 0]]]], np.float32)
    assert mae_in_view(predicted, volumes, [((0, 2), (0, 3))]) == pytest.approx([1.75 / 6])
    assert mae_in_view(predicted, volumes, [((0, 1), (1, 3))]) == pytest.approx([0.75])


def _by_hand(x: np.ndarray, y: np.ndarray, weights: list[float]) -> float:
    """MS-SSIM of one channel in numpy, from the definition."""
    taps = np.exp(-((np.arange(7) - 3.0) ** 2) / (2 * 1.5**2))
    taps /= taps.sum()

    def mean(values: np.ndarray) -> np.ndarray:
        for axis in range(values.ndim):
            values = correlate1d(values, taps, axis=axis)
        return values[(slice(3, -3),) * values.ndim]

    product = 1.0
    for scale, weight in enumerate(weights):
        if scale > 0:
            for axis in range(x.ndim):
                pairs = [[a.take(range(i, a.shape[axis] // 2 * 2, 2), axis) for i in (0, 1)]
                         for a in (x, y)]  # fmt: skip
                x, y = ((one + other) / 2 for one, other in pairs)
        mx, my = mean(x), mean(y)
        vx, vy, cov = mean(x * x) - mx**2, mean(y * y) - my**2, mean(x * y) - mx * my
        value = (2 * cov + 0.03**2) / (vx + vy + 0.03**2)
        if scale == len(weights) - 1:
            value = value * (2 * mx * my + 0.01**2) / (mx**2 + my**2 + 0.01**2)
        product *= max(value.mean(), 0) ** (weight / sum(weights))
    return product


@pytest.mark.parametrize("space", [(29, 31), (57, 60), (14, 18, 15), (13, 9, 8)])
def test_ms_ssim_is_wangs(space: tuple[int, ...]) -> None:
    """57: four scales fit, and MONAI's own function would refuse them."""
    predicted, volumes = pair(1, 1, space)
    scales = {29: 3, 57: 4, 14: 2, 8: 1}[min(space)]
    expected = _by_hand(
        predicted[0, 0].astype(np.float64),
        volumes[0, 0].astype(np.float64),
        [0.0448, 0.2856, 0.3001, 0.2363, 0.1333][:scales],
    )
    box = tuple((0, n) for n in space)
    assert ms_ssim_in_view(predicted, volumes, [box]) == pytest.approx([expected], abs=1e-4)
    assert expected < 0.999


def test_the_number_of_scales_follows_from_the_smallest_side() -> None:
    sides = [6, 7, 13, 14, 27, 28, 55, 56, 111, 112, 5000]
    assert [num_scales(side) for side in sides] == [0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5]
    predicted, volumes = pair()
    boxes = [((0, 16), (0, 6), (0, 14)), ((0, 16), (0, 7), (0, 14))]
    assert np.isnan(ms_ssim_in_view(predicted, volumes, boxes)).tolist() == [True, False]


def test_pairwise_ms_ssim_is_the_mean_over_different_pairs() -> None:
    _, volumes = pair(5, 1, (15, 14))
    box = ((0, 15), (0, 14))
    each = [
        ms_ssim_in_view(volumes[i : i + 1], volumes[j : j + 1], [box])[0]
        for j in range(5)
        for i in range(j)
    ]
    assert pairwise_ms_ssim(volumes, 99, 0) == pytest.approx(np.mean(each), rel=1e-5)
    some = [pairwise_ms_ssim(volumes, 1, seed) for seed in range(40)]
    assert {round(value, 5) for value in some} == {round(value, 5) for value in each}
    assert some[3] == pairwise_ms_ssim(volumes, 1, 3)


def test_copies_are_not_diverse_and_one_volume_has_no_pair() -> None:
    _, volumes = pair(1, 1, (15, 14))
    assert pairwise_ms_ssim(np.repeat(volumes, 6, axis=0), 9, 0) == pytest.approx(1, abs=1e-5)
    assert pairwise_ms_ssim(np.zeros((3, 1, 9, 9), np.float32), 9, 0) == pytest.approx(1)
    assert math.isnan(pairwise_ms_ssim(volumes, 9, 0))
    assert math.isnan(pairwise_ms_ssim(volumes[:, :, :6].repeat(2, axis=0), 9, 0))
