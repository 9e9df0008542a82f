"""Training volumes, varied; what is done to an item depends on its seed alone."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from vqmri.shapes import Volumes

_IMAGE, _LABEL = "image", "label"


class Augmentation:
    """Random mirroring, small affine maps and contrast, by MONAI, on the volumes' device.

    device: of the volumes
    labelled: whether the last channel is a label map, which keeps its values
    flips: axes that are mirrored in half of the items
    rotation: largest angle about each axis, in degrees
    scaling: largest share by which an axis is stretched or shrunk
    translation: largest shift along each axis, in voxels; rounded up to whole ones where there is
        neither rotation nor scaling, so that nothing is interpolated and so blurred
    contrast: intensities are raised to a power between 1 / (1 + contrast) and 1 + contrast

    What is moved in from outside a volume is 0, as the padding is.
    """

    def __init__(
        self,
        *,
        device: torch.device,
        labelled: bool,
        flips: Sequence[int],
        rotation: float,
        scaling: float,
        translation: Sequence[float],
        contrast: float,
    ) -> None:
        # Here, because MONAI takes two seconds to import, and most runs vary nothing.
        from monai.transforms import Compose, RandAdjustContrastd, RandAffined, RandFlipd

        keys = [_IMAGE, _LABEL] if labelled else [_IMAGE]
        angles = 1 if len(translation) == 2 else 3
        self._labelled = labelled
        self._shifts = [] if rotation or scaling else [_whole(shift) for shift in translation]
        affine = RandAffined(
            keys,
            prob=1.0,
            rotate_range=[float(np.radians(rotation))] * angles,
            scale_range=[scaling] * len(translation),
            translate_range=list(translation),
            mode=["bilinear", "nearest"][: len(keys)],
            padding_mode="zeros",
            device=device,
        )
        self._each = Compose(
            [
                *([] if self._shifts else [affine]),
                *(RandFlipd(keys, prob=0.5, spatial_axis=axis) for axis in flips),
                RandAdjustContrastd(_IMAGE, prob=1.0, gamma=(1 / (1 + contrast), 1 + contrast)),
            ]
        )

    def __call__(self, volumes: Volumes, seeds: Sequence[int]) -> Volumes:
        """One seed per volume; intensities stay in [0, 1]."""
        return torch.stack(
            [self._vary(volume, seed) for volume, seed in zip(volumes, seeds, strict=True)]
        )

    def _vary(self, volume: Tensor, seed: int) -> Tensor:
        self._each.set_random_state(seed % 2**32)
        if self._shifts:
            random = np.random.default_rng([seed, 2])
            volume = shifted(volume, [int(random.integers(-n, n + 1)) for n in self._shifts])
        if not self._labelled:
            return _plain(self._each({_IMAGE: volume})[_IMAGE]).clamp(0, 1)
        varied = self._each({_IMAGE: volume[:-1], _LABEL: volume[-1:]})
        image, label = (_plain(varied[key]) for key in (_IMAGE, _LABEL))
        return torch.cat([image.clamp(0, 1), label])


def _whole(shift: float) -> int:
    return math.ceil(round(shift, 6))  # what a quotient of mm adds in its last bits is no voxel


def _plain(volume: Tensor) -> Tensor:
    """Without the geometry that MONAI adds to what it resamples."""
    from monai.data import MetaTensor

    return volume.as_tensor() if isinstance(volume, MetaTensor) else volume


def shifted(
    volume: Float[Tensor, "channel *space"], by: Sequence[int]
) -> Float[Tensor, "channel *space"]:
    """Moved by whole voxels along each axis; what comes in is 0."""
    for axis, steps in enumerate(by, start=1):
        size = volume.shape[axis]
        kept = volume.narrow(axis, max(-steps, 0), size - abs(steps))
        empty = volume.new_zeros(
            [abs(steps) if a == axis else n for a, n in enumerate(volume.shape)]
        )
        volume = torch.cat([empty, kept] if steps > 0 else [kept, empty], dim=axis)
    return volume


def cut(
    volumes: Volumes, size: Sequence[int], seeds: Sequence[int]
) -> Float[Tensor, "batch channel *piece"]:
    """From each volume a piece of `size` voxels at a random place; an axis may be shorter."""
    pieces = []
    for volume, seed in zip(volumes, seeds, strict=True):
        place = np.random.default_rng([seed, 1])
        space = volume.shape[1:]
        starts = [place.integers(max(n - side, 0) + 1) for n, side in zip(space, size, strict=True)]
        pieces.append(volume[..., *(slice(s, s + n) for s, n in zip(starts, size, strict=True))])
    return torch.stack(pieces)
