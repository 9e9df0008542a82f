import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tests.prior.cases import AGE, SITE, net, prior, random_maps
from vqmri.prior import Prior
from vqmri.prior.covariates import Covariate, encode
from vqmri.prior.gain import GaussianGain
from vqmri.prior.objective import nats

THREE_LEVELS: tuple[list[tuple[int, ...]], list[int]] = (
    [(4, 4, 4), (4, 2, 2), (2, 1, 2)],
    [7, 6, 5],
)
PAIRS: tuple[list[tuple[int, ...]], list[int]] = ([(4, 6), (4, 6), (2, 3), (2, 3)], [3, 7, 4, 5])

UNREAD_OF_LAST_LAYER = ("conditions.0.weight", "residual.weight", "residual.bias")


def logits(module: Prior, values: list[Tensor]) -> list[Tensor]:
    rows = module.unknown(len(values[0]))
    with torch.no_grad():
        return [module.logits(index, values, rows) for index in range(len(values))]


@pytest.mark.parametrize("maps", [THREE_LEVELS, PAIRS], ids=["levels", "gains"])
def test_logits_have_their_shapes_and_nats_are_theirs(
    maps: tuple[list[tuple[int, ...]], list[int]],
) -> None:
    module = prior(*maps)
    values = random_maps(module, 2)
    found = logits(module, values)
    assert [tuple(x.shape) for x in found] == [(2, n, *grid) for grid, n in zip(*maps, strict=True)]
    for temperature in (1.0, 0.5, 3.0):
        for of_map, own, codes in zip(
            module(values, temperature=temperature), found, values, strict=True
        ):
            torch.testing.assert_close(of_map, nats(own / temperature, codes))


@pytest.mark.parametrize("maps", [THREE_LEVELS, PAIRS], ids=["levels", "gains"])
def test_each_map_sees_each_position_of_all_maps_above_and_nothing_of_those_below(
    maps: tuple[list[tuple[int, ...]], list[int]],
) -> None:
    module = prior(*maps)
    values = random_maps(module, 2)
    before = logits(module, values)
    for other, (grid, number) in enumerate(zip(*maps, strict=True)):
        for position in np.ndindex(*grid):
            changed = [each.clone() for each in values]
            changed[other][(0, *position)] = (changed[other][(0, *position)] + 1) % number
            for index, after in enumerate(logits(module, changed)):
                assert torch.equal(after[1], before[index][1])  # the batch's other item
                if index > other:
                    assert torch.equal(after, before[index])
                elif index < other:
                    assert not torch.equal(after[0], before[index][0]), (index, other, position)


def test_codes_are_names_and_no_numbers() -> None:
    """Other names for the same codes, with their vectors and logits moved along: the same prior."""
    module = prior(*PAIRS)
    values = random_maps(module, 3)
    before = logits(module, values)
    renamed = [torch.randperm(number) for number in module.num_embeddings]

    def rename(embedding: nn.Module, names: Tensor) -> None:
        assert isinstance(embedding, nn.Embedding)
        embedding.weight.data[names] = embedding.weight.data.clone()

    for index, names in enumerate(renamed):
        rename(net(module, index).embedding, names)
        last = net(module, index).head[-1]
        for parameter in last.parameters():
            parameter.data[names] = parameter.data.clone()
        above = module.above[index]
        assert isinstance(above, nn.ModuleList)
        for map_above, other in zip(above, renamed[index + 1 :], strict=True):
            rename(map_above.get_submodule("embedding"), other)
    after = logits(module, [names[codes] for names, codes in zip(renamed, values, strict=True)])
    for names, one, other in zip(renamed, before, after, strict=True):
        torch.testing.assert_close(other[:, names], one, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize(
    ("num_embeddings", "attentions"), [([5], [2]), ([3, 5], [0, 2]), ([7, 0, 6, 0, 5], [0, 0, 2])]
)
def test_the_top_alone_has_attention_and_real_gains_no_net(
    num_embeddings: list[int], attentions: list[int]
) -> None:
    module = prior([(4, 4)] * len(num_embeddings), num_embeddings, num_attention=2)
    real = [isinstance(each, GaussianGain) for each in module.maps]
    assert real == [number == 0 for number in num_embeddings]
    nets = [index for index, number in enumerate(num_embeddings) if number]
    assert [len(net(module, index).attentions) for index in nets] == attentions


@pytest.mark.parametrize("covariates", [[], [AGE, SITE]], ids=["plain", "conditioned"])
def test_the_loss_reaches_every_parameter(covariates: list[Covariate]) -> None:
    module = prior([(4, 4), (4, 4), (2, 2)], [3, 7, 5], covariates=covariates, num_attention=1)
    rows = encode(module.covariates, [{"age": 30, "site": "a"}, {}] if covariates else [{}, {}])
    torch.stack([each.mean() for each in module(random_maps(module, 2), rows)]).sum().backward()
    # of the last layer nobody reads the streams, but only what it adds to the read-out
    unread = {f"maps.{i}.layers.2.{part}" for i in range(3) for part in UNREAD_OF_LAST_LAYER}
    reached = {
        name: parameter.grad is not None and bool((parameter.grad != 0).any())
        for name, parameter in module.named_parameters()
    }
    assert {name for name in reached if not reached[name]} == unread


def test_arguments_are_enough_to_build_the_same_prior() -> None:
    module = prior(*PAIRS, covariates=[AGE, SITE])
    other = prior(*PAIRS, covariates=[AGE, SITE])
    values, rows = random_maps(module, 2), encode([AGE, SITE], [{"age": 30}, {"site": "c"}])
    assert not torch.equal(other(values, rows)[0], module(values, rows)[0])
    other.load_state_dict(module.state_dict())
    for one, two in zip(module(values, rows), other(values, rows), strict=True):
        assert torch.equal(one, two)
