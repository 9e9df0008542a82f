import pytest
import torch

from vqmri.vqvae.blocks import (
    Down,
    PointwiseBlock,
    ResidualBlock,
    Up,
    depth_to_space,
    space_to_depth,
)


@pytest.mark.parametrize("space", [(4, 6), (4, 6, 2)])
def test_depth_to_space_undoes_space_to_depth(space: tuple[int, ...]) -> None:
    x = torch.randn(2, 3, *space)
    deep = space_to_depth(x)
    assert deep.shape == (2, 3 * 2 ** len(space), *(n // 2 for n in space))
    assert torch.equal(depth_to_space(deep), x)


def test_space_to_depth_keeps_neighbours_together() -> None:
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    assert space_to_depth(x)[0, :, 0, 1].tolist() == [2, 3, 6, 7]


def test_agrees_with_torch_in_2d() -> None:
    x = torch.randn(1, 8, 3, 5)
    assert torch.equal(depth_to_space(x), torch.nn.functional.pixel_shuffle(x, 2))


@pytest.mark.parametrize("dims", [2, 3])
def test_shapes_of_down_up_and_residual(dims: int) -> None:
    x = torch.randn(1, 8, *[8] * dims)
    low = Down(dims, 8, 16)(x)
    assert low.shape == (1, 16, *[4] * dims)
    for block in (ResidualBlock, PointwiseBlock):
        assert block(dims, 16)(low).shape == low.shape
    assert Up(dims, 16, 8)(low).shape == x.shape


def test_a_pointwise_block_sees_one_position_but_for_its_norm() -> None:
    block = PointwiseBlock(3, 8)
    block.body[0] = torch.nn.Identity()
    x = torch.randn(1, 8, 4, 4, 4)
    changed = x.clone()
    changed[..., 1, 2, 3] += 1
    places = (block(changed) != block(x)).any(dim=1)[0].nonzero().tolist()
    assert places == [[1, 2, 3]]
