"""The sampler for a GPU: on the CPU operation by operation, on a GPU as a graph."""

import pytest
import torch

from tests.prior.test_cached_sampler import CASES, CHOICES, drawn, prior
from vqmri.prior.choice import Choice
from vqmri.prior.graphed_sampler import graphed
from vqmri.prior.sampler import draw, one_by_one

DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("choice", ["T = 1", "all"])
@pytest.mark.parametrize("case", CASES)
def test_it_draws_what_the_reference_draws(case: str, choice: str, device: str) -> None:
    module = prior(1, **CASES[case])
    expected = drawn(module, one_by_one, CHOICES[choice])
    found = drawn(module.to(device), graphed, CHOICES[choice])
    assert all(torch.equal(one.cpu(), other) for one, other in zip(found, expected, strict=True))


@pytest.mark.parametrize("device", DEVICES)
def test_float32_has_all_its_bits_on_a_gpu(device: str) -> None:
    module = prior(1, **CASES["attention"]).float()
    expected = drawn(module, one_by_one, Choice())
    found = drawn(module.to(device), graphed, Choice())
    assert torch.equal(found[0].cpu(), expected[0])


@pytest.mark.parametrize("number", [1, 14, 15, 59])
def test_it_completes_what_has_begun(number: int) -> None:
    module = prior(4, **CASES["attention"])
    begun = [torch.randint(7, (3, number))]
    expected = drawn(module, one_by_one, Choice(), begun)
    assert torch.equal(drawn(module, graphed, Choice(), begun)[0], expected[0])


@pytest.mark.parametrize("device", DEVICES)
def test_a_second_draw_is_the_same(device: str) -> None:
    module = prior(3, **CASES["attention"]).to(device)
    first, second = (
        draw(module, seed=0, numbers=[0, 1], choice=Choice(), sampler=graphed) for _ in range(2)
    )
    assert torch.equal(first[0], second[0])
