import pytest
import torch
from torch import Tensor, nn

from vqmri.convolution import convolution
from vqmri.training.device import mixed_precision


def gradients(module: nn.Module, x: Tensor, weights: Tensor, *, mixed: bool) -> list[Tensor]:
    module.zero_grad()
    x = x.clone().requires_grad_()
    with mixed_precision(x.device) if mixed else torch.autocast("cpu", enabled=False):
        y = module(x)
    (y.float() * weights).sum().backward()
    return [g for g in (x.grad, *(p.grad for p in module.parameters())) if g is not None]


@pytest.mark.parametrize(
    "grid", [(2, 3, 2), (2, 14, 10), (2, 2, 2), (1, 1, 1), (3, 2, 3), (5, 4, 3), (2, 3), (6, 5)]
)
def test_mixed_precision_gradients_are_right_on_every_grid(grid: tuple[int, ...]) -> None:
    module = convolution(len(grid), 16, 8, 3, padding=1)
    x, weights = torch.randn(4, 16, *grid), torch.randn(4, 8, *grid)
    exact = gradients(module, x, weights, mixed=False)
    for found, expected in zip(gradients(module, x, weights, mixed=True), exact, strict=True):
        assert float((found - expected).norm() / expected.norm()) < 0.02


def test_two_planes_give_what_torch_gives_in_float32() -> None:
    module = convolution(3, 4, 4, 3, padding=1)
    x = torch.randn(1, 4, 2, 5, 3)
    weight, bias = module.parameters()
    expected = nn.functional.conv3d(x, weight, bias, padding=1)
    torch.testing.assert_close(module(x), expected)
