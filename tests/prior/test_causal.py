"""The invariant of every stream, on all pairs of positions, in float64 with random weights."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import product

import numpy as np
import pytest
import torch
import yaml
from torch import Tensor

from tests.conftest import REPO
from tests.prior.cases import AGE, SITE, net, pixelcnn, prior, random_maps
from vqmri.build.train_prior import prior_arguments
from vqmri.build.train_vqvae import vqvae_arguments
from vqmri.params import Params
from vqmri.prior import PixelCNN, Prior
from vqmri.prior.causal import kernel_size, reach, shift
from vqmri.prior.covariates import encode
from vqmri.vqvae import VQVAE

Position = tuple[int, ...]


def seen(
    module: PixelCNN,
    run: Callable[[Tensor], Tensor],
    codes: Tensor,
    outputs: Iterable[Position] | None = None,
) -> Iterator[tuple[Position, np.ndarray]]:
    """Output positions, each with the mask of the codes that its value depends on."""
    embedded: list[Tensor] = []

    def keep(_: torch.nn.Module, __: object, output: Tensor) -> Tensor:
        embedded.append(output.detach().requires_grad_())
        return embedded[-1]

    handle = module.embedding.register_forward_hook(keep)
    output = run(codes)
    handle.remove()
    for position in np.ndindex(*codes.shape[1:]) if outputs is None else outputs:
        value = output[(0, slice(None), *position)].square().sum()
        (gradient,) = torch.autograd.grad(
            value, embedded[0], retain_graph=True, materialize_grads=True
        )
        yield position, (gradient[0] != 0).any(dim=-1).numpy()


def seen_in_prior(
    module: Prior, index: int, outputs: Iterable[Position] | None = None
) -> Iterator[tuple[Position, np.ndarray]]:
    """The same for one map of a prior, which may be conditioned."""
    values = random_maps(module, 1)
    rows = encode(module.covariates, [{"age": 33.0, "site": "b"} if module.covariates else {}])

    def run(codes: Tensor) -> Tensor:
        return module.logits(index, [*values[:index], codes, *values[index + 1 :]], rows)

    return seen(net(module, index), run, values[index], outputs)


def earlier(position: Position, grid: Sequence[int]) -> np.ndarray:
    order = np.arange(np.prod(grid)).reshape(tuple(grid))
    return np.asarray(order < order[position])


def allowed(stream: int, output: Position, other: Position) -> bool:
    """Stream a sees whatever differs first on an axis ≤ a, and is smaller there."""
    for axis, (o, p) in enumerate(zip(other, output, strict=True)):
        if o != p:
            return axis <= stream and o < p
    return False


@pytest.mark.parametrize("grid", [(4, 5, 3), (3, 3, 4), (5, 6), (6, 3)])
def test_each_stream_sees_all_that_it_may_and_nothing_else(grid: tuple[int, ...]) -> None:
    module = pixelcnn(grid)
    for stream in range(len(grid)):

        def run(codes: Tensor, stream: int = stream) -> Tensor:
            embedded = module.embedding(codes).movedim(-1, 1)
            streams = [shift(embedded, axis) for axis in range(len(grid))]
            for layer in module.layers:
                streams, _ = layer(streams, module.position)
            return streams[stream]

        for output, found in seen(module, run, torch.randint(5, (1, *grid))):
            may = [allowed(stream, output, other) for other in np.ndindex(*grid)]
            assert (found.ravel() == may).all(), (stream, output)


@pytest.mark.parametrize("grid", [(4, 5, 3), (3, 4, 4), (5, 6), (7, 2)])
def test_the_whole_net_sees_every_earlier_position_and_no_other(grid: tuple[int, ...]) -> None:
    module = pixelcnn(grid)
    for output, found in seen(module, module, torch.randint(5, (1, *grid))):
        assert (found == earlier(output, grid)).all(), output


@pytest.mark.parametrize("grid", [(3, 5, 4), (4, 2, 6), (7, 8)])
@pytest.mark.parametrize("heads", [1, 3])
def test_with_attention_a_shallow_net_sees_every_earlier_position_and_no_other(
    grid: tuple[int, ...], heads: int
) -> None:
    settings = {"num_layers": 2, "kernel": 2, "radius": 1}
    assert any(
        (reach(p, grid, **settings) != earlier(p, grid)).any() for p in np.ndindex(*grid)
    )  # that it is the attention's doing
    module = pixelcnn(grid, num_attention=1, heads=heads, **settings)
    for output, found in seen(module, module, torch.randint(5, (1, *grid))):
        assert (found == earlier(output, grid)).all(), output


@pytest.mark.parametrize(
    ("grid", "num_layers", "kernel", "radius"),
    [
        ((4, 5, 5), 1, 2, 1),
        ((5, 4, 6), 2, 2, 1),
        ((3, 6, 5), 2, 3, 1),
        ((7, 4, 4), 3, 2, 2),
        ((7, 9), 1, 3, 2),
        ((9, 8), 2, 3, 1),
        ((9, 9), 3, 2, 1),
        ((8, 9), 2, 4, 1),
    ],
)
def test_the_reach_without_attention_is_what_is_stated(
    grid: tuple[int, ...], num_layers: int, kernel: int, radius: int
) -> None:
    settings = {"num_layers": num_layers, "kernel": kernel, "radius": radius}
    module = pixelcnn(grid, **settings)
    missed = 0
    for output, found in seen(module, module, torch.randint(5, (1, *grid))):
        expected = reach(output, grid, **settings)
        assert (found == expected).all(), output
        missed += int((earlier(output, grid) & ~expected).sum())
    assert missed > 0  # else any net that is deep enough would have passed


def test_reach_of_a_known_case() -> None:
    """On 10×14×10 with radius 1, eight layers miss 531 of 1,260 positions and thirteen none."""
    grid = (10, 14, 10)
    found = [int(reach((9, 0, 0), grid, layers, 3, 1).sum()) for layers in (8, 12, 13)]
    assert [1260 - number for number in found] == [531, 90, 0]
    assert not reach((0, 0, 0), grid, 8, 3, 1).any()


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("num_embeddings", [(5, 4), (5, 3, 4), (5, 0, 4)], ids=str)
def test_a_conditioned_map_has_exactly_its_reach_and_the_top_sees_all(
    dims: int, num_embeddings: tuple[int, ...]
) -> None:
    """Two levels; the upper one without gains, with quantised and with real ones."""
    fine, coarse = ((4, 6, 4), (2, 3, 2)) if dims == 3 else ((6, 9), (3, 3))
    grids = [fine] + [coarse] * (len(num_embeddings) - 1)
    settings = {"num_layers": 2, "kernel": 2, "radius": 1}
    module = prior(
        grids, num_embeddings, covariates=[AGE, SITE], num_attention=1, heads=2, **settings
    )
    for index in range(len(grids)):
        if num_embeddings[index] == 0:
            continue
        for output, found in seen_in_prior(module, index):
            expected = (
                earlier(output, coarse)
                if index == len(grids) - 1
                else reach(output, grids[index], **settings)
            )
            assert (found == expected).all(), (index, output)


@pytest.mark.parametrize("preset", sorted(p.stem for p in (REPO / "vqmri/presets").glob("*.yaml")))
def test_a_presets_top_misses_nothing_of_its_grid_and_lower_maps_have_their_reach(
    preset: str,
) -> None:
    """The corners of the grid have the longest ways; here with the preset's depth and kernels."""
    params = Params.model_validate(
        yaml.safe_load((REPO / f"vqmri/presets/{preset}.yaml").read_text())
    )
    shape, settings = params.ingest.shape, params.train_prior
    model = VQVAE(
        **vqvae_arguments(params.train_vqvae, spatial_dims=len(shape), in_channels=1, num_classes=0)
    )
    arguments = prior_arguments(
        settings,
        grids=[[n // factor for n in shape] for factor in model.downsamplings],
        num_embeddings=[min(number, 5) for number in model.num_embeddings],
        covariates=[],
    )
    channels = max(2, settings.heads)
    # Weights of half the usual size: a saturated gate's derivative is 0 in float64.
    module = prior(std=0.2, **(arguments | {"channels": channels, "dropout": 0.0}))
    depth = {n: getattr(settings, n) for n in ("num_layers", "kernel", "radius")}
    top = len(module.grids) - 1
    for index, grid in enumerate(module.grids):
        if module.num_embeddings[index]:
            corners = product(*[sorted({0, n // 2, n - 1}) for n in grid])
            for output, found in seen_in_prior(module, index, corners):
                expected = earlier(output, grid) if index == top else reach(output, grid, **depth)
                assert (found == expected).all(), (index, output)


def test_shift_moves_one_step_and_fills_with_zeros() -> None:
    x = torch.arange(6.0).reshape(1, 1, 2, 3)
    assert shift(x, 0).tolist() == [[[[0, 0, 0], [0, 1, 2]]]]
    assert shift(x, 1).tolist() == [[[[0, 0, 1], [0, 3, 4]]]]


def test_kernels_look_back_along_their_own_axis_and_around_on_later_ones() -> None:
    assert [kernel_size(a, 3, 3, 2) for a in range(3)] == [(3, 5, 5), (1, 3, 5), (1, 1, 3)]
    assert [kernel_size(a, 2, 2, 1) for a in range(2)] == [(2, 3), (1, 2)]
