import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from scipy.spatial.distance import jensenshannon
from scipy.stats import ks_2samp

from vqmri.evaluation.anatomy import (
    amount,
    describe,
    foreground,
    high_frequency_share,
    histogram_distance,
    ks_distance,
    spectral_slope,
    symmetry,
)


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(shape, dtype=np.float32)


def test_amounts_by_hand() -> None:
    volume = np.zeros((2, 4, 5, 6), np.float32)
    volume[0, :2] = 0.051
    volume[0, 2] = 0.05
    volume[1] = 1
    assert amount(foreground(volume), (10, 2, 5)) == pytest.approx(60 * 100 / 1000)
    assert amount(foreground(volume), ()) == pytest.approx(0.5)


def test_symmetry_is_of_left_and_right() -> None:
    half = noise(1, 5, 7, 6)
    whole = np.concatenate([half, half[:, ::-1]], axis=1)
    assert symmetry(whole) == pytest.approx(1)
    assert symmetry(whole.swapaxes(1, 2)) < 0.3
    tilted = np.linspace(0, 1, 8, dtype=np.float32)[None, :, None, None] * np.ones((1, 8, 3, 3))
    assert symmetry(tilted.astype(np.float32)) == pytest.approx(-1)


@pytest.mark.parametrize("shape", [(32, 30), (16, 20, 18)])
def test_the_energy_of_single_waves_lies_at_their_frequency(shape: tuple[int, ...]) -> None:
    x = np.arange(shape[0]).reshape(-1, *[1] * (len(shape) - 1)) * np.ones(shape)
    low, high = (np.cos(2 * np.pi * f * x) for f in (2 / shape[0], 6 / 16))
    for a, b in [(1, 0), (0, 1), (3, 1)]:
        volume = (5 + a * low + b * high).astype(np.float32)[None]
        assert high_frequency_share(volume) == pytest.approx(b**2 / (a**2 + b**2), abs=1e-5)


@pytest.mark.parametrize("shape", [(200, 220), (40, 44, 48)])
@pytest.mark.parametrize("slope", [0.0, -2.0, -3.5])
def test_the_slope_of_a_spectrum_that_is_a_power_law(shape: tuple[int, ...], slope: float) -> None:
    waves = np.fft.fftn(np.random.default_rng(0).standard_normal(shape))
    axes = np.meshgrid(*(np.fft.fftfreq(n) for n in shape), indexing="ij")
    frequency = np.sqrt(sum(axis**2 for axis in axes))
    frequency.flat[0] = 1
    volume = np.fft.ifftn(waves * frequency ** (slope / 2)).real.astype(np.float32)
    assert spectral_slope(volume[None]) == pytest.approx(slope, abs=0.15)


def test_blur_steepens_the_slope_and_lowers_the_share() -> None:
    sharp = noise(1, 20, 20, 20)
    blurred = gaussian_filter(sharp, (0, 1, 1, 1))
    assert spectral_slope(blurred) < spectral_slope(sharp) - 1
    assert high_frequency_share(blurred) < 0.5 * high_frequency_share(sharp)


def test_describe_measures_each_volume_alone() -> None:
    volumes = noise(5, 3, 8, 9, 10)
    volumes[:, 2] = np.random.default_rng(1).integers(3, size=(5, 8, 9, 10))
    found = describe(volumes, (1.0, 2.0, 2.5), 4)
    assert set(found) == {
        "foreground_cm3", "foreground_mean", "foreground_std", "high_frequency_share",
        "spectral_slope", "symmetry", "label_1_cm3", "label_2_cm3", "label_3_cm3",
    }  # fmt: skip
    for i, volume in enumerate(volumes):
        assert found["label_2_cm3"][i] == pytest.approx((volume[2] == 2).sum() * 0.005)
        assert found["label_3_cm3"][i] == 0
        grey = volume[0][volume[0] > 0.05]
        assert found["foreground_cm3"][i] == pytest.approx(len(grey) * 0.005)
        assert found["foreground_mean"][i] == pytest.approx(grey.mean())
        assert found["foreground_std"][i] == pytest.approx(grey.std(), rel=1e-5)
        assert found["symmetry"][i] == symmetry(volume)
        assert found["spectral_slope"][i] == spectral_slope(volume)
        assert found["high_frequency_share"][i] == high_frequency_share(volume)


def test_pictures_have_shares_and_no_symmetry() -> None:
    found = describe(noise(3, 1, 9, 8), ())
    assert set(found) == {
        "foreground_share", "foreground_mean", "foreground_std", "high_frequency_share",
        "spectral_slope",
    }  # fmt: skip


@pytest.mark.parametrize("value", [0.0, 0.1, 1.0])
def test_flat_volumes_have_amounts_and_no_structure(value: float) -> None:
    found = describe(np.full((2, 1, 7, 6, 5), value, np.float32), (1, 1, 1))
    for name in ("symmetry", "spectral_slope", "high_frequency_share"):
        assert np.isnan(found[name]).all()
    assert found["foreground_cm3"] == pytest.approx([0.21 * (value > 0.05)] * 2)
    assert np.isnan(found["foreground_mean"]).all() == (value == 0)
    assert describe(np.zeros((0, 1, 7, 6), np.float32), ()) == {}


def test_volumes_of_one_voxel_and_of_one_slice() -> None:
    for shape in ((1, 1, 1, 1), (1, 6, 1, 5)):
        found = describe(noise(2, *shape), (1, 1, 1))
        assert np.isnan(found["spectral_slope"]).all()


def test_histogram_distance_equals_scipys() -> None:
    a, b = noise(6, 1, 9, 8), noise(4, 1, 9, 8, seed=1) ** 2
    p, q = (np.histogram(x, bins=64, range=(0, 1))[0] for x in (a, b))
    assert histogram_distance(a, b) == pytest.approx(jensenshannon(p, q, base=2) ** 2)
    assert histogram_distance(a, a[::-1]) == 0
    assert histogram_distance(np.zeros(5), np.full(9, 0.5)) == 1
    assert histogram_distance(np.array([-3.0, 7.0]), np.array([0.0, 1.0])) == 0
    assert np.isnan(histogram_distance(a, a[:0]))


def test_ks_distance_equals_scipys() -> None:
    random = np.random.default_rng(0)
    a, b = random.integers(9, size=30) / 3.0, random.integers(12, size=17) / 3.0
    expected = ks_2samp(a, b, method="asymp").statistic
    assert ks_distance(a, b) == pytest.approx(expected)
    assert ks_distance(np.append(a, np.nan), b) == pytest.approx(expected)
    assert ks_distance(a, a) == 0
    assert ks_distance(np.zeros(4), np.ones(9)) == 1
    assert np.isnan(ks_distance(a, np.full(3, np.nan)))
