"""Volumes as vectors in which distances between *sets* of volumes mean something.

No one space is right: a random net sees texture and layout and knows nothing of brains, the
project's own encoder knows brains and may be blind to what it never learned to keep, and a net
trained elsewhere is neither. Measure in several.
"""

import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

import numpy as np
import scipy.linalg
import torch
from jaxtyping import Float
from monai.networks.nets import resnet
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional

from vqmri.convolution import without_tf32
from vqmri.errors import InputError
from vqmri.outputs import sha256_of
from vqmri.quantizers import Quantized, Quantizer
from vqmri.shapes import Volumes
from vqmri.training.device import choose_device
from vqmri.vqvae import VQVAE
from vqmri.vqvae.tiles import core, core_within, tiles

MOST_DIMENSIONS = 16
"""Of a projection: a covariance of some 40 items has no more than a few to spare."""

_VOXELS_PER_BATCH = 2**19
_CELLS = 2  # of a pooled grid along each axis
_CONVOLVE = {2: functional.conv2d, 3: functional.conv3d}
_POOL: dict[int, Any] = {2: functional.adaptive_avg_pool2d, 3: functional.adaptive_avg_pool3d}


class FeatureSpace(ABC):
    """Maps volumes to vectors, one by one; calling it twice gives the same bytes on the CPU.

    Every space takes the same volumes, (grey channels and maybe a label map, *space), and looks at
    the channels that are its own.

    name: goes into reports; two spaces whose features differ have two names
    """

    name: str
    device: torch.device

    @torch.inference_mode()
    def __call__(
        self, volumes: Float[np.ndarray, "item channel *space"]
    ) -> Float[np.ndarray, "item feature"]:
        """Features in float64 of at least one volume; memory is that of a few volumes."""
        size = max(1, _VOXELS_PER_BATCH // int(np.prod(volumes.shape[2:])))
        found = []
        with without_tf32():
            for start in range(0, len(volumes), size):
                batch = np.ascontiguousarray(volumes[start : start + size], np.float32)
                features = self._features(torch.from_numpy(batch).to(self.device))
                found.append(features.double().cpu().numpy())
        return np.concatenate(found)

    @abstractmethod
    def _features(self, volumes: Volumes) -> Float[Tensor, "batch feature"]:
        """Of one batch, in float32."""


@final
class RandomNet(FeatureSpace):
    """A convolutional net with random weights that no version of PyTorch changes.

    Naeem et al. 2020 (arXiv:2002.09797) propose an untrained net for images that are unlike those
    that nets are trained on. Convolutions of 3 voxels with ReLU, strides of 2 between
    the stages, no bias; weights are He-scaled. The features are the mean and the standard deviation
    over space of every channel of every stage, and the last stage on a grid of 2 cells per axis.
    Half of the first filters add up to 0: they see edges and texture and no brightness.

    spatial_dims: 2 or 3; channels: how many of a volume's first channels go in: the grey ones
    """

    WIDTHS = (16, 32, 48, 64)

    def __init__(self, spatial_dims: int, channels: int, seed: int = 0) -> None:
        self.name = f"random-cnn-v1-seed-{seed}"
        self.device = choose_device()
        self._channels = channels
        random = np.random.Generator(np.random.Philox(seed))
        self._weights: list[Tensor] = []
        before = channels
        for width in self.WIDTHS:
            weights = random.standard_normal((width, before, *[3] * spatial_dims))
            if not self._weights:
                taps = tuple(range(2, weights.ndim))
                weights[::2] -= weights[::2].mean(axis=taps, keepdims=True)
            weights *= np.sqrt(2 / weights[0].size)
            self._weights.append(torch.from_numpy(weights.astype(np.float32)).to(self.device))
            before = width

    def _features(self, volumes: Volumes) -> Float[Tensor, "batch feature"]:
        dims, state = volumes.ndim - 2, volumes[:, : self._channels]
        found = []
        for stage, weights in enumerate(self._weights):
            stride = 1 if stage == 0 else 2
            state = _CONVOLVE[dims](state, weights, stride=stride, padding=1).relu_()
            flat = state.flatten(start_dim=2)
            found += [flat.mean(dim=2), flat.std(dim=2, correction=0)]
        return torch.cat([*found, _pooled(state)], dim=1)


@final
class EncoderSpace(FeatureSpace):
    """The latents of the project's own encoder before they are quantized, on 2 cells per axis.

    The levels stand one after another, the top first. `vqvae` is in evaluation mode, where volumes
    larger than its patches are done in tiles; its volumes have a label map if it was trained so.
    """

    name = "encoder"

    def __init__(self, vqvae: VQVAE) -> None:
        self.device = next(vqvae.parameters()).device
        self._vqvae = vqvae

    def _features(self, volumes: Volumes) -> Float[Tensor, "batch feature"]:
        seen: list[Tensor] = []

        def look(quantizer: Quantizer, latents: Tensor) -> Quantized:
            seen.append(latents)
            return quantizer(latents)

        self._vqvae.reconstruct(volumes, look)
        scales = self._vqvae.scales[::-1]
        return torch.cat(
            [
                _pooled(self._whole(seen[level :: len(scales)], volumes.shape[2:], 2 ** (s + 1)))
                for level, s in enumerate(scales)
            ],
            dim=1,
        )

    def _whole(self, parts: list[Tensor], space: torch.Size, factor: int) -> Tensor:
        """The latents of all tiles as one grid, `factor` times coarser than the volumes."""
        if len(parts) == 1:
            return parts[0]
        assert self._vqvae.patch is not None
        every = tiles(space, self._vqvae.patch, max(self._vqvae.downsamplings))
        whole = parts[0].new_empty(*parts[0].shape[:2], *(n // factor for n in space))
        for tile, part in zip(every, parts, strict=True):
            whole[core(tile, factor)] = part[core_within(tile, factor)]
        return whole


@final
class WeightsFile(FeatureSpace):
    """A ResNet that the user gives, such as MedicalNet's (Chen et al. 2019, arXiv:1904.00625).

    MONAI's resnet10, 18, 34 or 50 with a first stride of 2, as MONAI runs MedicalNet; the depth and
    the kind of shortcut are found in the file. Each volume's first channel goes in, with mean 0 and
    standard deviation 1, and the last stage's mean over space comes out.

    path: .safetensors; a .pth can run code when it is read, so save its tensors as this once
    Raises InputError for a file that is not there or holds anything else, and for volumes with
    another number of axes than the net.
    """

    def __init__(self, path: Path) -> None:
        state = _state(path)
        depth, self._spatial_dims, net = _resnet(path, state)
        try:
            net.load_state_dict(state)
        except RuntimeError as error:
            raise _unfit(path, f"its keys are not those of a resnet{depth}: {error}") from error
        self.name = f"resnet{depth}-{sha256_of(path)[:12]}"
        self.device = choose_device()
        self._net = net.to(self.device).eval()

    def _features(self, volumes: Volumes) -> Float[Tensor, "batch feature"]:
        if volumes.ndim - 2 != self._spatial_dims:
            raise InputError(
                f"evaluate.weights: {self.name} is a net in {self._spatial_dims}D and these "
                f"volumes have {volumes.ndim - 2} axes. Give weights that fit them, or null."
            )
        grey = volumes[:, 0].flatten(start_dim=1)
        spread = grey.std(dim=1, keepdim=True, correction=0).clamp(min=1e-6)  # of a flat volume
        standard = (grey - grey.mean(dim=1, keepdim=True)) / spread
        return self._net(standard.reshape(len(volumes), 1, *volumes.shape[2:]))


@final
@dataclass(frozen=True)
class Projection:
    """Principal components of reference features, whitened: mean 0 and variance 1 on these.

    To be fitted on real features that are not themselves measured: along their own components they
    are exactly white, and other real ones are not. Every feature is divided by its
    standard deviation first, so that none counts more for its unit; those that are constant on the
    reference are left out. A component's largest loading is positive.
    """

    mean: Float[np.ndarray, " feature"]
    loadings: Float[np.ndarray, "feature dimension"]

    @classmethod
    def fit(cls, reference_features: Float[np.ndarray, "item feature"]) -> "Projection":
        """At most MOST_DIMENSIONS, a quarter of the items, and the rank.

        Axes of fewer items each are noise, along which other items lie far out. A reference of
        fewer than four items, or of items that are all alike, has none.
        """
        mean = reference_features.mean(axis=0)
        centred = reference_features - mean
        spread = np.sqrt(np.square(centred).mean(axis=0))
        varies = spread > 1e-6 * np.abs(reference_features).max(axis=0)  # float32 has 7 digits
        inverse = np.divide(1, spread, out=np.zeros_like(spread), where=varies)
        centred *= inverse
        items, features = centred.shape
        count = min(MOST_DIMENSIONS, items // 4, features)
        if count < 1 or not varies.any():
            return cls(mean, np.zeros((features, 0)))
        variances, axes = scipy.linalg.eigh(
            centred.T @ centred / (items - 1), subset_by_index=(features - count, features - 1)
        )
        there = variances[::-1] > 1e-9 * variances[-1]
        variances, axes = variances[::-1][there], axes[:, ::-1][:, there]
        largest = axes[np.abs(axes).argmax(axis=0), np.arange(axes.shape[1])]
        return cls(mean, inverse[:, None] * axes * np.sign(largest) / np.sqrt(variances))

    def __call__(
        self, features: Float[np.ndarray, "item feature"]
    ) -> Float[np.ndarray, "item dimension"]:
        return (features - self.mean) @ self.loadings


def _pooled(state: Tensor) -> Float[Tensor, "batch feature"]:
    return _POOL[state.ndim - 2](state, _CELLS).flatten(start_dim=1)


def _state(path: Path) -> dict[str, Tensor]:
    """The tensors of a file of weights by their names, without the "module." of DataParallel."""
    try:
        content = load_file(path)
    except (OSError, SafetensorError) as error:
        raise _unfit(path, f"it cannot be read ({error})") from error
    named = {re.sub(r"^(module\.)+", "", key): value for key, value in content.items()}
    return {
        key: value for key, value in named.items() if key.startswith(("conv1.", "bn1.", "layer"))
    }  # no classifier


_DEPTHS: dict[tuple[str, tuple[int, ...]], int] = {
    ("basic", (1, 1, 1, 1)): 10,
    ("basic", (2, 2, 2, 2)): 18,
    ("basic", (3, 4, 6, 3)): 34,
    ("bottleneck", (3, 4, 6, 3)): 50,
}


def _resnet(path: Path, state: Mapping[str, Tensor]) -> tuple[int, int, nn.Module]:
    """Depth, axes and the net whose keys these are, with weights of its own as yet."""
    blocks = {tuple(key.split(".")[:2]) for key in state if key.startswith("layer")}
    layers = tuple(sum(layer == f"layer{i}" for layer, *_ in blocks) for i in (1, 2, 3, 4))
    kind = "bottleneck" if "layer1.0.conv3.weight" in state else "basic"
    depth = _DEPTHS.get((kind, layers))
    first = state.get("conv1.weight")
    if depth is None or first is None or first.ndim not in (4, 5):
        raise _unfit(path, f"it has no conv1 in 2D or 3D, or {layers} {kind} blocks")
    if first.shape[1] != 1:
        raise _unfit(path, f"its net takes {first.shape[1]} channels, not 1")
    with torch.random.fork_rng():
        net: nn.Module = getattr(resnet, f"resnet{depth}")(
            spatial_dims=first.ndim - 2,
            n_input_channels=1,
            conv1_t_stride=2,
            feed_forward=False,
            shortcut_type="B" if "layer2.0.downsample.0.weight" in state else "A",
            bias_downsample="layer2.0.downsample.0.bias" in state,
        )
    return depth, first.ndim - 2, net


def _unfit(path: Path, reason: str) -> InputError:
    return InputError(
        f"{path} is no file of weights for features: {reason}. Give the state of a resnet10, "
        "18, 34 or 50 with one input channel, as MONAI or MedicalNet have it, in "
        ".safetensors: `safetensors.torch.save_file(state, path)` writes one."
    )
