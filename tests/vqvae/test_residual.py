import numpy as np
import pytest
from scipy.ndimage import gaussian_filter

from vqmri.prior.sampler import Drawing
from vqmri.vqvae.residual import Residual, add_residuals, fit_residuals


def smooth(count: int, shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    images = [gaussian_filter(random.standard_normal(shape), 3) for _ in range(count)]
    images = [(image - image.min()) / np.ptp(image) * 0.6 + 0.2 for image in images]
    return np.stack(images).astype(np.float32)


def coloured(shape: tuple[int, ...], random: np.random.Generator) -> np.ndarray:
    noise = gaussian_filter(random.standard_normal(shape), 0.8, mode="wrap")
    return noise / noise.std()


@pytest.mark.parametrize("shape", [(32, 28), (20, 24, 16)])
def test_drawn_noise_has_the_size_and_the_spectrum_of_what_was_left_out(
    shape: tuple[int, ...],
) -> None:
    random = np.random.default_rng(1)
    means = smooth(24, shape)
    sizes = np.where(means > 0.5, 0.06, 0.02)
    volumes = np.stack([m + s * coloured(shape, random) for m, s in zip(means, sizes, strict=True)])
    residual = Residual.fit(lambda: zip(volumes.astype(np.float32), means, strict=True))
    drawn = np.stack([residual.draw(m, np.random.default_rng(i)) for i, m in enumerate(means)])
    for inside in (means < 0.45, means > 0.55):  # away from the edge of the table's bins
        real, made = (volumes - means)[inside].std(), (drawn - means)[inside].std()
        assert made == pytest.approx(real, rel=0.12)
    spectra = [
        np.mean([np.abs(np.fft.fftn(x)) ** 2 for x in (some - means) / sizes], axis=0)
        for some in (volumes, drawn)
    ]
    high = np.abs(np.fft.fftfreq(shape[0]))[:, None] > 0.3
    high = np.broadcast_to(high.reshape(-1, *[1] * (len(shape) - 1)), shape)
    shares = [spectrum[high].sum() / spectrum.sum() for spectrum in spectra]
    assert shares[1] == pytest.approx(shares[0], rel=0.2)
    white = np.mean(high)
    assert shares[0] < white / 3  # coloured, so the test can tell


def test_nothing_left_out_is_no_noise() -> None:
    means = smooth(3, (16, 16))
    residual = Residual.fit(lambda: zip(means, means, strict=True))
    assert np.allclose(residual.draw(means[0], np.random.default_rng(0)), means[0])


def test_a_sample_depends_on_seed_and_number_alone_and_labels_stay() -> None:
    means = smooth(6, (12, 12, 12))
    random = np.random.default_rng(0)
    volumes = np.clip(means + 0.05 * random.standard_normal(means.shape), 0, 1).astype(np.float32)
    about = fit_residuals(lambda: zip(volumes[:, None], means[:, None], strict=True), 1)
    volume = np.stack([means[0], (means[0] > 0.5).astype(np.float32)])
    one, same = (add_residuals(volume, about, seed=3, number=5) for _ in range(2))
    assert (one == same).all()
    assert (one[1] == volume[1]).all()
    assert one.dtype == np.float32
    assert one.min() >= 0
    assert one.max() <= 1
    for other in (add_residuals(volume, about, 3, 6), add_residuals(volume, about, 4, 5)):
        assert abs(np.corrcoef((one - volume)[0].ravel(), (other - volume)[0].ravel())[0, 1]) < 0.2


@pytest.mark.parametrize("number", [0, 1, 256])
def test_the_noise_is_none_that_drew_codes(number: int) -> None:
    means = smooth(6, (12, 12, 12))
    volumes = means + 0.05 * coloured(means.shape, np.random.default_rng(0)).astype(np.float32)
    about = fit_residuals(lambda: zip(volumes[:, None], means[:, None], strict=True), 1)
    found = add_residuals(means[:1], about, seed=3, number=number)[0]
    for sample in (number, number << 8):
        (stream,) = Drawing(3, [sample], 0)._streams
        assert np.abs(Residual(**about[0]).draw(means[0], stream) - found).max() > 0.01
