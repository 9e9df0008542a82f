"""What codes leave out of a volume, as noise: p(x | codes) in place of its mean alone.

A decoder trained on squared error gives the mean of all volumes that have these codes, which is
smoother than any of them. In the Gaussian view of that loss, x = x̂ + r, and a sample of x has its
own r. Here r is σ(x̂) · u: σ depends on the intensity and the slope of x̂ at a voxel, and u is
stationary Gaussian noise with the spectrum that r / σ has on training volumes.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, final

import numpy as np
from jaxtyping import Float, Int

Image = Float[np.ndarray, "*space"]
Pairs = Callable[[], Iterable[tuple[np.ndarray, np.ndarray]]]

INTENSITIES = np.linspace(0, 1, 17)[1:-1]
"""Edges between the bins of x̂."""
SLOPES = 0.01 * 2.0 ** np.arange(6)
"""Edges between the bins of |∇x̂|, per voxel."""
_RINGS = 32
_NOTHING = 1e-12
_FEW = 10.0  # voxels; a bin of fewer leans on the whole


@final
@dataclass(frozen=True)
class Residual:
    """The noise of one grey channel.

    deviations: σ in each bin of intensity and slope
    power: of u at equal steps of frequency from 0 to the corner of the spectrum; its mean over all
        waves of the grid that it was fitted on is 1
    """

    deviations: list[list[float]]
    power: list[float]

    @classmethod
    def fit(cls, pairs: Pairs) -> "Residual":
        """From training volumes and what their codes are decoded to, intensities in [0, 1].

        pairs: called twice, so that no more than one volume need be in memory
        """
        shape = (len(INTENSITIES) + 1, len(SLOPES) + 1)
        counts, squares = np.zeros(shape).ravel(), np.zeros(shape).ravel()
        for volume, image in pairs():
            where, error = _bins(image).ravel(), np.square(volume - image, dtype=np.float64)
            counts += np.bincount(where, minlength=counts.size)
            squares += np.bincount(where, error.ravel(), counts.size)
        overall = squares.sum() / max(counts.sum(), 1) or _NOTHING
        deviations = np.sqrt((squares + _FEW * overall) / (counts + _FEW))
        power, waves = np.zeros(_RINGS), np.zeros(_RINGS)
        for volume, image in pairs():
            ring = _rings(volume.shape).ravel()
            spectrum = np.square(np.abs(np.fft.fftn((volume - image) / deviations[_bins(image)])))
            power += np.bincount(ring, spectrum.ravel(), _RINGS)
            waves += np.bincount(ring, minlength=_RINGS)
        mean = power.sum() / waves.sum() or 1.0
        power = np.divide(power, waves * mean, out=np.zeros(_RINGS), where=waves > 0)
        return cls(deviations.reshape(shape).tolist(), power.tolist())

    def draw(self, image: Image, random: np.random.Generator) -> Image:
        """A volume whose mean is `image`, in [0, 1]."""
        white = np.fft.fftn(random.standard_normal(image.shape))
        scale = np.sqrt(np.array(self.power)[_rings(image.shape)])
        noise = np.fft.ifftn(white * scale).real
        deviation = np.array(self.deviations).ravel()[_bins(image)]
        return np.clip(image + deviation * noise, 0, 1).astype(image.dtype)


def fit_residuals(pairs: Pairs, channels: int) -> list[dict[str, Any]]:
    """One for each of the first `channels`, as plain JSON. Label maps are no grey channels.

    pairs: volume and reconstruction, (channel, *space); called twice for every channel
    """

    def of(channel: int) -> Pairs:
        return lambda: ((volume[channel], image[channel]) for volume, image in pairs())

    return [asdict(Residual.fit(of(channel))) for channel in range(channels)]


def add_residuals(
    volume: Float[np.ndarray, "channel *space"],
    residuals: Sequence[dict[str, Any]],
    seed: int,
    number: int,
) -> Float[np.ndarray, "channel *space"]:
    """A decoded sample with its own noise, by (seed, number) alone; a label map stays as it is."""
    found = volume.copy()
    for channel, about in enumerate(residuals):
        # the prior's draws of a map have counters of [0, 0, 0, map]
        philox = np.random.Philox(key=[seed, number], counter=[0, 0, 1, channel])
        random = np.random.Generator(philox)
        found[channel] = Residual(**about).draw(volume[channel], random)
    return found


def _bins(image: Image) -> Int[np.ndarray, "*space"]:
    """Index of each voxel's bin in the flattened table."""
    slope = np.sqrt(sum(np.square(part) for part in np.gradient(image.astype(np.float64))))
    rows = np.searchsorted(INTENSITIES, image)
    return rows * (len(SLOPES) + 1) + np.searchsorted(SLOPES, slope)


def _rings(shape: Sequence[int]) -> Int[np.ndarray, "*space"]:
    """Index of each wave's ring; the last ends at the corner, half a cycle along every axis."""
    axes = np.meshgrid(*(np.fft.fftfreq(n) for n in shape), indexing="ij", sparse=True)
    frequency = np.sqrt(sum(np.square(axis) for axis in axes))
    corner = 0.5 * np.sqrt(len(shape))
    return np.minimum((frequency / corner * _RINGS).astype(np.int64), _RINGS - 1)
