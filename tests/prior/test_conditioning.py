import numpy as np
import pytest
import torch

from vqmri.prior.conditioning import MapAbove


@pytest.mark.parametrize(
    ("grid", "factors"), [((2, 3), (3, 2)), ((2, 1, 2), (2, 4, 1)), ((3, 3, 3), (1, 1, 1))]
)
def test_each_position_has_the_embedding_of_the_code_that_covers_it(
    grid: tuple[int, ...], factors: tuple[int, ...]
) -> None:
    """So nothing is mixed between codes, as it would be if they were stretched as numbers."""
    module = MapAbove(7, 4, factors, num_layers=0)
    assert isinstance(module.embedding, torch.nn.Embedding)
    codes = torch.randint(7, (2, *grid))
    found = module(codes)
    assert found.shape == (2, 4, *(n * f for n, f in zip(grid, factors, strict=True)))
    for position in np.ndindex(*found.shape[2:]):
        above = tuple(p // f for p, f in zip(position, factors, strict=True))
        expected = module.embedding.weight[codes[(slice(None), *above)]]
        assert torch.equal(found[(slice(None), slice(None), *position)], expected)


def test_a_real_gain_enters_as_a_number() -> None:
    module = MapAbove(0, 4, (2, 2), num_layers=0)
    values = torch.randn(2, 3, 3)
    zero, one = module(torch.zeros(1, 1, 1)), module(torch.ones(1, 1, 1))
    found = module(values)
    stretched = values.repeat_interleave(2, 1).repeat_interleave(2, 2).unsqueeze(1)
    torch.testing.assert_close(found, zero[..., :1, :1] + stretched * (one - zero)[..., :1, :1])


@pytest.mark.parametrize("num_layers", [1, 2])
def test_a_layer_looks_one_coarse_position_around_in_all_directions(num_layers: int) -> None:
    module = MapAbove(7, 4, (2, 2), num_layers)
    codes = torch.randint(7, (1, 7, 7))
    changed = codes.clone()
    changed[0, 3, 3] = (changed[0, 3, 3] + 1) % 7
    different = (module(codes) != module(changed))[0].any(dim=0)
    expected = torch.zeros(14, 14, dtype=torch.bool)
    low, high = 2 * (3 - num_layers), 2 * (3 + num_layers + 1)
    expected[low:high, low:high] = True
    assert torch.equal(different, expected)
