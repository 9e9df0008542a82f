"""The invariant of every stream, on all pairs of positions, in float64 with random weights."""

from collections.abc import Callable, Sequence
from itertools import product

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor

from tests.conftest import REPO
from vqmri.prior import PixelCNN
from vqmri.prior.causal import kernel_size, shift

Position = tuple[int, ...]


def net(grid: Sequence[int], **changes: int) -> PixelCNN:
    arguments = {"channels": 6, "num_layers": 4, "kernel": 3, "radius": 2} | changes
    module = PixelCNN(num_embeddings=5, grid=grid, dropout=0.0, **arguments).double().eval()
    for parameter in module.parameters():  # far from linear, so that nothing cancels
        torch.nn.init.normal_(parameter, std=0.5)
    return module


def reach(
    function: Callable[[Tensor], Tensor], module: PixelCNN, grid: Sequence[int]
) -> dict[Position, set[Position]]:
    """For each output position, the input positions that its value depends on."""
    embedded: list[Tensor] = []

    def keep(_: torch.nn.Module, __: object, output: Tensor) -> Tensor:
        embedded.append(output.detach().requires_grad_())
        return embedded[-1]

    handle = module.embedding.register_forward_hook(keep)
    found = {}
    output = function(torch.randint(5, (1, *grid)))
    for position in np.ndindex(*grid):
        value = output[(0, slice(None), *position)].square().sum()
        gradient = torch.autograd.grad(value, embedded[-1], retain_graph=True, allow_unused=True)[0]
        touched = [] if gradient is None else gradient[0].abs().sum(dim=-1).nonzero().tolist()
        found[position] = {tuple(p) for p in touched}
    handle.remove()
    return found


def allowed(stream: int, output: Position, other: Position) -> bool:
    """Stream a sees whatever differs first on an axis ≤ a, and is smaller there."""
    for axis, (o, p) in enumerate(zip(other, output, strict=True)):
        if o != p:
            return axis <= stream and o < p
    return False


@pytest.mark.parametrize("grid", [(4, 5, 3), (3, 3, 4), (5, 6), (6, 3)])
def test_each_stream_sees_all_that_it_may_and_nothing_else(grid: tuple[int, ...]) -> None:
    module = net(grid)
    for stream in range(len(grid)):

        def run(codes: Tensor, stream: int = stream) -> Tensor:
            embedded = module.embedding(codes).movedim(-1, 1)
            streams = [shift(embedded, axis) for axis in range(len(grid))]
            for layer in module.layers:
                streams, _ = layer(streams, module.position)
            return streams[stream]

        for output, seen in reach(run, module, grid).items():
            may = {p for p in product(*map(range, grid)) if allowed(stream, output, p)}
            assert seen == may, (stream, output)


@pytest.mark.parametrize("grid", [(4, 5, 3), (3, 4, 4), (5, 6), (7, 2)])
def test_the_whole_net_sees_every_earlier_position_and_no_other(grid: tuple[int, ...]) -> None:
    module = net(grid)
    for output, seen in reach(module, module, grid).items():
        assert seen == {p for p in product(*map(range, grid)) if p < output}, output


def test_too_few_layers_miss_earlier_positions() -> None:
    """That the test above can fail: the reach of one layer of radius 1 is small."""
    module = net((3, 6, 6), num_layers=1, radius=1)
    assert any(
        seen != {p for p in product(range(3), range(6), range(6)) if p < output}
        for output, seen in reach(module, module, (3, 6, 6)).items()
    )


@pytest.mark.parametrize("preset", sorted(p.stem for p in (REPO / "presets").glob("*.yaml")))
def test_a_presets_prior_misses_no_earlier_position_of_its_own_grid(preset: str) -> None:
    """The corners of the grid have the longest ways; here with the preset's depth and kernels."""
    values = yaml.safe_load((REPO / f"presets/{preset}.yaml").read_text())
    factor = values["train_vqvae"]["levels"][-1]["downsampling"]
    grid = [n // factor for n in values["ingest"]["shape"]]
    settings = values["train_prior"]
    module = net(
        grid,
        channels=2,
        num_layers=settings["num_layers"],
        kernel=settings["kernel"],
        radius=settings["radius"],
    )
    embedded: list[Tensor] = []

    def keep(_: torch.nn.Module, __: object, output: Tensor) -> Tensor:
        embedded.append(output.detach().requires_grad_())
        return embedded[-1]

    module.embedding.register_forward_hook(keep)
    output = module(torch.randint(5, (1, *grid)))
    for position in product(*[(0, n // 2, n - 1) for n in grid]):
        value = output[(0, slice(None), *position)].square().sum()
        gradient = torch.autograd.grad(value, embedded[0], retain_graph=True)[0]
        seen = gradient[0].abs().sum(dim=-1) > 0
        order = torch.arange(seen.numel()).reshape(grid)
        assert torch.equal(seen, order < order[position]), position


def test_shift_moves_one_step_and_fills_with_zeros() -> None:
    x = torch.arange(6.0).reshape(1, 1, 2, 3)
    assert shift(x, 0).tolist() == [[[[0, 0, 0], [0, 1, 2]]]]
    assert shift(x, 1).tolist() == [[[[0, 0, 1], [0, 3, 4]]]]


def test_kernels_look_back_along_their_own_axis_and_around_on_later_ones() -> None:
    assert [kernel_size(a, 3, 3, 2) for a in range(3)] == [(3, 5, 5), (1, 3, 5), (1, 1, 3)]
    assert [kernel_size(a, 2, 2, 1) for a in range(2)] == [(2, 3), (1, 2)]
