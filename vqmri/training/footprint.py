"""What a training step needs in memory and in arithmetic, found without running it."""

import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from vqmri.prior import Prior, nats_per_code
from vqmri.quantizers import Quantizer
from vqmri.training.autoencoding import Autoencoding
from vqmri.training.device import mixed_precision
from vqmri.vqvae import VQVAE
from vqmri.vqvae.blocks import ResidualBlock

ALLOCATED = 1.15
"""Bytes that the allocator holds for each byte in use.

Freed pieces are not always of a size that is asked for again. Seven trainings on the CPU, with
`return_large_blocks`: 1.0 to 1.3; on CUDA it was not measured.
"""

_FLOAT = 4
_TRIALS, _TRIAL_CHANNELS, _TRIAL_SPACE = 3, 32, (40, 56, 40)


@dataclass(frozen=True)
class Footprint:
    """What one step of the optimiser needs.

    parameters: how many numbers are trained
    held: bytes that stay from step to step: weights, buffers, the optimiser's moments, the average
    peak: most bytes in use at a time, `held` among them
    multiply_adds: of all convolutions and matrix products, forward and backward
    """

    parameters: int
    held: int
    peak: int
    multiply_adds: float

    @property
    def memory(self) -> int:
        """Bytes that the allocator needs for `peak`."""
        return round(ALLOCATED * self.peak)


def footprint(
    build: Callable[[], nn.Module],
    loss: Callable[[nn.Module], Tensor],
    *,
    device: torch.device,
    parts: int = 1,
    moments: int = 2,
    averaged: bool = False,
) -> Footprint:
    """Of a step in which `loss` of what `build` makes is computed and derived `parts` times.

    Both are called where tensors have a shape and no content, and what they allocate is followed;
    what they make is on the device.
    moments: that the optimiser keeps of each weight
    averaged: a moving average of the weights is kept too
    """
    with FakeTensorMode(), device, _Followed() as followed:
        model = build().train()
        _learn_nothing(model)
        weights = list(model.parameters())
        for tensor in [*weights, *model.buffers()]:
            followed.hold(tensor)
        copies = [torch.empty_like(p) for p in weights for _ in range(moments + averaged)]
        held = followed.now
        for _ in range(min(parts, 2)):  # in the second the gradient of the first is there
            before = followed.flops
            loss(model).backward()
            flops = followed.flops - before
        del copies
    number = sum(weight.numel() for weight in weights)
    return Footprint(number, held, followed.peak, flops / 2 * parts)


def vqvae_footprint(
    arguments: Mapping[str, Any],
    *,
    space: Sequence[int],
    batch_size: int,
    micro_batch: int | None = None,
    checkpointing: bool = False,
    averaged: bool = False,
    device: torch.device,
    **costs: float,
) -> Footprint:
    """Of the VQ-VAE with these arguments, on volumes (or patches) of `space` voxels.

    costs: as `Autoencoding` takes them. Augmentation comes before, when little else is in memory.
    """
    at_a_time = micro_batch or batch_size
    channels = arguments["in_channels"] + (arguments["num_classes"] > 0)

    def build() -> nn.Module:
        model = VQVAE(**arguments)
        if checkpointing:
            model.recompute_activations()
        return Autoencoding(model, spatial_dims=arguments["spatial_dims"], **costs)

    def loss(model: nn.Module) -> Tensor:
        terms, _ = model(torch.zeros(at_a_time, channels, *space))
        return terms["loss"]

    found = footprint(
        build, loss, device=device, parts=batch_size // at_a_time, moments=1, averaged=averaged
    )
    volume = torch.Size(space).numel()
    tokens = sum(volume // d ** len(space) for d in arguments["downsamplings"]) * batch_size
    waiting = tokens * (arguments["embedding_dim"] + 2) * _FLOAT  # vectors and codes, of all parts
    return Footprint(found.parameters, found.held, found.peak + waiting, found.multiply_adds)


def prior_footprint(
    arguments: Mapping[str, Any],
    *,
    batch_size: int,
    micro_batch: int | None = None,
    averaged: bool = False,
    device: torch.device,
) -> Footprint:
    """Of the prior with these arguments."""
    at_a_time = micro_batch or batch_size

    def loss(model: nn.Module) -> Tensor:
        sizes = arguments["num_embeddings"]
        maps = [
            torch.zeros(at_a_time, *grid, dtype=torch.int64 if size else None)
            for grid, size in zip(arguments["grids"], sizes, strict=True)
        ]
        with mixed_precision(device):
            found = model(maps, torch.zeros(at_a_time, 0))
        return nats_per_code(found, sizes)

    return footprint(
        lambda: Prior(**arguments),
        loss,
        device=device,
        parts=batch_size // at_a_time,
        averaged=averaged,
    )


def multiply_adds_per_second(device: torch.device) -> float:
    """The device's rate in training a residual block of the VQ-VAE: a second or two are measured.

    Other shapes have other rates, so what follows from it is a forecast within a factor of two.
    """
    block = ResidualBlock(3, _TRIAL_CHANNELS).to(device)
    x = torch.randn(1, _TRIAL_CHANNELS, *_TRIAL_SPACE, device=device, requires_grad=True)
    kernels = (27 + 1) * _TRIAL_CHANNELS**2
    number = 3 * kernels * torch.Size(_TRIAL_SPACE).numel()  # once forward, twice backward
    times = []
    for _ in range(_TRIALS + 1):
        start = time.perf_counter()
        with mixed_precision(device):
            total = block(x).float().square().mean()
        total.backward()
        float(total.detach())  # waits for the device
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        times.append(time.perf_counter() - start)
    return number / min(times[1:])


class _Followed(TorchDispatchMode):
    """Counts the bytes of all tensors that are alive, each storage once, and multiply-adds.

    Convolutions are counted with a further copy of their operands: oneDNN and cuDNN lay them out
    anew. (Measured for the gradient of 3×3×3 in bfloat16 on the CPU: exactly that.)
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now = self.peak = 0
        self.flops = 0.0
        self._alive: dict[int, int] = {}

    def hold(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key = storage._cdata
        if key in self._alive:
            return
        self._alive[key] = storage.nbytes()
        self.now += storage.nbytes()
        weakref.finalize(storage, self._drop, key)

    def _drop(self, key: int) -> None:
        self.now -= self._alive.pop(key)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        made = [value for value in tree_leaves(out) if isinstance(value, Tensor)]
        for tensor in made:
            self.hold(tensor)
        work = 0
        if "convolution" in func.name():
            read = [v for v in tree_leaves((args, kwargs)) if isinstance(v, Tensor)]
            work = sum(tensor.numel() * tensor.element_size() for tensor in [*read, *made])
        self.peak = max(self.peak, self.now + work)
        count = flop_registry.get(func._overloadpacket)
        if count is not None:
            self.flops += count(*args, **kwargs, out_val=out)
        return out


def _learn_nothing(model: nn.Module) -> None:
    """What quantizers learn in a step depends on values, and there are none."""
    for module in model.modules():
        if isinstance(module, Quantizer):
            module.eval()
