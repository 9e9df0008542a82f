"""The cached sampler against the reference: code for code, and logit for logit."""

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from vqmri.prior import PixelCNN, Prior
from vqmri.prior.cached_sampler import Incremental
from vqmri.prior.covariates import Categorical, Continuous, to_json
from vqmri.prior.sampler import FullForward, draw

COVARIATES = to_json([Categorical("sex", ("F", "M")), Continuous("age", 20, 90, 50, 20)])
CASES: list[dict[str, Any]] = [
    {"grids": [(4, 5, 3)], "num_embeddings": [7]},
    {"grids": [(5, 6)], "num_embeddings": [7]},
    {"grids": [(3, 4, 5)], "num_embeddings": [7], "kernel": 2, "radius": 1},
    {"grids": [(4, 5, 3)], "num_embeddings": [7], "num_attention": 2},
    {"grids": [(5, 4)], "num_embeddings": [7], "num_attention": 1, "covariates": COVARIATES},
    {"grids": [(4, 4, 4), (2, 2, 2)], "num_embeddings": [7, 5], "num_attention": 1,
     "covariates": COVARIATES},
    {"grids": [(4, 4), (4, 4), (2, 2)], "num_embeddings": [3, 6, 5], "num_attention": 1},
    {"grids": [(3, 4, 2), (3, 4, 2)], "num_embeddings": [0, 6]},
]  # fmt: skip


def prior(**arguments: Any) -> Prior:
    """Random weights of which the logits have a deviation of 3 or more.

    Else the noise decides every code and a wrong cache goes unseen.
    """
    defaults = {"channels": 8, "num_layers": 3, "kernel": 3, "radius": 2, "heads": 2}
    module = Prior(**(defaults | {"dropout": 0.0} | arguments)).double().eval()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.45)
    for net in module.maps:
        if isinstance(net, PixelCNN):
            last: Any = net.head[-1]
            last.weight.data *= 8
    return module


def drawn(
    module: Prior, stepper: Any, guidance: float = 1.0, temperature: float = 1.0
) -> tuple[Sequence[Tensor], Tensor]:
    """Three samples, and all logits on the way."""
    seen: list[Tensor] = []

    class Recorded(stepper):  # type: ignore[misc]
        def logits(self, position: tuple[int, ...]) -> Tensor:
            found = super().logits(position)
            seen.append(found.flatten().clone())
            return found

    rows = torch.tensor([[0.0, 0.5], [1.0, torch.nan], [torch.nan, -2.0]]).double()
    maps = draw(
        module,
        seed=5,
        numbers=[0, 1, 7],
        temperature=temperature,
        rows=rows if module.covariates else None,
        guidance=guidance,
        stepper=Recorded,
    )
    return maps, torch.cat(seen)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_it_draws_what_the_reference_draws(case: dict[str, Any]) -> None:
    module = prior(**case)
    expected, logits = drawn(module, FullForward)
    found, fast = drawn(module, Incremental)
    assert logits.std() >= 3
    torch.testing.assert_close(fast, logits, rtol=0, atol=1e-9)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-12)


@pytest.mark.parametrize(("guidance", "temperature"), [(2.5, 1.0), (1.0, 0.0), (1.0, 0.6)])
def test_guidance_and_temperature_too(guidance: float, temperature: float) -> None:
    module = prior(**CASES[5])
    expected, _ = drawn(module, FullForward, guidance, temperature)
    found, _ = drawn(module, Incremental, guidance, temperature)
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)


def test_logits_of_a_draw_are_those_of_one_forward_pass() -> None:
    module = prior(**CASES[3])
    (codes,), logits = drawn(module, Incremental)
    whole = module.logits(0, [codes], module.unknown(3)).detach()
    by_position = whole.flatten(2).permute(2, 0, 1).flatten()
    torch.testing.assert_close(logits, by_position, rtol=0, atol=1e-9)
