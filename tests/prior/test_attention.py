from collections.abc import Iterator, Sequence

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.prior.cases import pixelcnn, scattered
from vqmri.prior.attention import CausalAttention, attention_after

CHANNELS = 6
every_grid = pytest.mark.parametrize("grid", [(3, 4), (2, 3, 2)])
every_heads = pytest.mark.parametrize("heads", [1, 2])


def attention(grid: Sequence[int], heads: int, dropout: float = 0.0) -> CausalAttention:
    return scattered(CausalAttention(len(grid), CHANNELS, heads, dropout), std=0.7)


def random_inputs(grid: Sequence[int], batch: int = 1) -> list[Tensor]:
    """Stream, embedded codes and condition."""
    return [torch.randn(batch, CHANNELS, *grid, dtype=torch.float64) for _ in range(3)]


def by_hand(module: CausalAttention, inputs: Sequence[Tensor]) -> np.ndarray:
    """Position by position: a softmax over the earlier positions and a null key, score and value 0.

    One batch item; (channel, position).
    """
    stream, embedded, condition = (x[0].flatten(1).numpy() for x in inputs)

    def project(name: str, *parts: np.ndarray) -> np.ndarray:
        convolution = module.get_submodule(name)
        weight, bias = convolution.weight, convolution.bias
        assert isinstance(weight, Tensor)
        product = weight.detach().numpy().reshape(CHANNELS, -1) @ np.concatenate(parts)
        return product + (bias.detach().numpy()[:, None] if isinstance(bias, Tensor) else 0.0)

    query = project("query", stream, condition)
    key, value = (project(name, stream, condition, embedded) for name in ("key", "value"))
    found = np.zeros_like(value)
    for part in np.split(np.arange(CHANNELS), module.heads):
        for position in range(value.shape[1]):
            scores = query[part, position] @ key[part, :position] / np.sqrt(len(part))
            weights = np.exp([0.0, *scores])
            weights /= weights.sum()
            found[part, position] = value[part, :position] @ weights[1:]
    return project("out", found)


@every_grid
@every_heads
def test_equals_a_softmax_over_what_is_strictly_earlier(grid: tuple[int, ...], heads: int) -> None:
    module, inputs = attention(grid, heads), random_inputs(grid)
    found = module(*inputs)[0].flatten(1).detach().numpy()
    np.testing.assert_allclose(found, by_hand(module, inputs), rtol=1e-10, atol=1e-12)
    assert np.abs(found[:, 1:]).min() > 1e-6


@every_grid
@every_heads
def test_the_first_position_gets_exactly_zero(grid: tuple[int, ...], heads: int) -> None:
    found = attention(grid, heads)(*(1000 * x for x in random_inputs(grid, batch=3)))
    assert (found.flatten(2)[:, :, 0] == 0).all()
    assert (found.flatten(2)[:, :, 1:] != 0).any(dim=(0, 1)).all()


def gradients(module: CausalAttention, inputs: Sequence[Tensor]) -> Iterator[list[np.ndarray]]:
    """For each output position, which positions of each input it depends on."""
    inputs = [x.requires_grad_() for x in inputs]
    output = module(*inputs).flatten(2)
    for position in range(output.shape[2]):
        value = output[0, :, position].square().sum()
        found = torch.autograd.grad(value, inputs, retain_graph=True)
        yield [(x[0] != 0).any(dim=0).flatten().numpy() for x in found]


@every_grid
@every_heads
def test_codes_count_if_strictly_earlier_and_the_rest_up_to_the_position_itself(
    grid: tuple[int, ...], heads: int
) -> None:
    """Stream and condition know only earlier codes, so that they may ask where they stand."""
    order = np.arange(np.prod(grid))
    pairs = gradients(attention(grid, heads), random_inputs(grid))
    for position, (stream, embedded, condition) in enumerate(pairs):
        assert (embedded == (order < position)).all()
        if position:
            assert (stream == (order <= position)).all()
            assert (condition == (order <= position)).all()


@every_grid
def test_changes_at_a_position_and_after_it_change_no_bit_of_its_output(
    grid: tuple[int, ...],
) -> None:
    module, inputs = attention(grid, 2), random_inputs(grid)
    before = module(*inputs).flatten(2)
    for position in range(before.shape[2]):
        stream, embedded, condition = (x.clone().flatten(2) for x in inputs)
        stream[:, :, position + 1 :] += 50
        embedded[:, :, position:] += 50
        condition[:, :, position + 1 :] -= 50
        changed = [x.reshape(inputs[0].shape) for x in (stream, embedded, condition)]
        after = module(*changed).flatten(2)
        assert torch.equal(after[:, :, : position + 1], before[:, :, : position + 1])
        if position + 1 < before.shape[2]:
            assert (after[:, :, position + 1 :] != before[:, :, position + 1 :]).all()


@pytest.mark.parametrize("grid", [(5, 4), (4, 3, 2)])
def test_the_first_planes_alone_give_the_logits_of_the_whole(grid: tuple[int, ...]) -> None:
    module = pixelcnn(grid, num_attention=2, heads=2, condition_channels=3)
    codes = torch.randint(5, (2, *grid))
    condition = torch.randn(2, 3, *grid, dtype=torch.float64)
    whole = module(codes, condition)
    for planes in range(1, grid[0] + 1):
        found = module(codes[:, :planes], condition[:, :, :planes])
        torch.testing.assert_close(found, whole[:, :, :planes], rtol=1e-10, atol=1e-10)


def test_dropout_is_of_training_alone() -> None:
    module, inputs = attention((3, 4), 1, dropout=0.5), random_inputs((3, 4))
    assert torch.equal(module(*inputs), module(*inputs))
    module.train()
    assert not torch.equal(module(*inputs), module(*inputs))


def test_attentions_are_spread_evenly_and_the_last_layer_has_none() -> None:
    assert attention_after(6, 0) == []
    assert attention_after(6, 1) == [2]
    assert attention_after(6, 2) == [1, 3]
    assert attention_after(12, 3) == [2, 5, 8]
    for num_layers in range(2, 30):
        for number in range(1, num_layers):
            found = attention_after(num_layers, number)
            assert sorted(set(found)) == found
            assert len(found) == number
            assert found[0] >= 0
            assert found[-1] < num_layers - 1


def test_a_net_has_the_attentions_that_were_asked_for() -> None:
    module = pixelcnn((3, 4), num_layers=6, num_attention=2, heads=2)
    assert list(module.attentions) == ["1", "3"]
    assert not pixelcnn((3, 4)).attentions
