import numpy as np
import pytest
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from vqmri.evaluation.reconstruction import SSIM_WINDOW, psnr_in_view, ssim_in_view

BOXES = [((0, 16), (0, 18), (0, 14)), ((3, 15), (2, 18), (1, 12))]


def pair() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    volumes = random.random((2, 1, 16, 18, 14), dtype=np.float32)
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


def test_perfect_reconstruction() -> None:
    _, volumes = pair()
    assert ssim_in_view(volumes, volumes, BOXES) == pytest.approx([1, 1], abs=1e-5)
    assert np.isinf(psnr_in_view(volumes, volumes, BOXES)).all()


def test_a_field_of_view_smaller_than_the_window_has_no_ssim() -> None:
    predicted, volumes = pair()
    small = [((0, 16), (0, 3), (0, 14))] * 2
    assert np.isnan(ssim_in_view(predicted, volumes, small)).all()
