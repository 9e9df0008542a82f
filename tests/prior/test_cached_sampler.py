"""The cached sampler against the reference: code for code, and logit for logit."""

from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numba
import numpy as np
import pytest
import torch
from torch import Tensor

import vqmri.prior
from vqmri.prior import PixelCNN, Prior, cached_sampler
from vqmri.prior.cached_sampler import cached
from vqmri.prior.choice import Choice
from vqmri.prior.covariates import Categorical, Continuous, to_json
from vqmri.prior.sampler import MapSampler, Task, draw, one_by_one

COVARIATES = to_json([Categorical("sex", ("F", "M")), Continuous("age", 20, 90, 50, 20)])
CASES: dict[str, dict[str, Any]] = {
    "3D": {"grids": [(4, 5, 3)], "num_embeddings": [7]},
    "2D": {"grids": [(5, 6)], "num_embeddings": [7]},
    "other kernel": {"grids": [(3, 4, 5)], "num_embeddings": [7], "kernel": 2, "radius": 1},
    "attention": {"grids": [(4, 5, 3)], "num_embeddings": [7], "num_attention": 2},
    "covariates, 2D, attention": {
        "grids": [(5, 4)], "num_embeddings": [7], "num_attention": 1, "covariates": COVARIATES,
    },
    "covariates, levels, attention": {
        "grids": [(4, 6, 4), (2, 3, 2)], "num_embeddings": [7, 5], "num_attention": 1,
        "covariates": COVARIATES,
    },
    "gains and levels": {
        "grids": [(4, 6), (4, 6), (2, 3)], "num_embeddings": [3, 6, 5], "num_attention": 1,
    },
    "real gains": {"grids": [(3, 4, 2), (3, 4, 2)], "num_embeddings": [0, 6]},
}  # fmt: skip
CHOICES = {
    "T = 1": Choice(),
    "T = 0": Choice(0.0),
    "T = 0.6": Choice(0.6),
    "top-k": Choice(1.3, top_k=3),
    "top-p": Choice(0.9, top_p=0.8),
    "guidance": Choice(guidance=2.5),
    "all": Choice(0.8, top_k=4, top_p=0.9, guidance=1.5),
}
ROWS = torch.tensor([[0.0, 0.5], [1.0, torch.nan], [torch.nan, -2.0]]).double()


def prior(seed: int = 0, **arguments: Any) -> Prior:
    """Random weights of which the logits have a deviation of 3 or more.

    Else the noise decides every code and a wrong cache goes unseen.
    """
    torch.manual_seed(seed)
    defaults = {"channels": 8, "num_layers": 3, "kernel": 3, "radius": 2, "heads": 2}
    module = Prior(**(defaults | {"dropout": 0.0} | arguments)).double().eval()
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.45)
    for net in module.maps:
        if isinstance(net, PixelCNN):
            last: Any = net.head[-1]
            last.weight.data *= 8
    return module


class Recorded:
    """The cached sampler, and how far its logits are from those of a forward pass over its codes.

    In that pass each position's logits come from the codes before it alone, so they are what the
    reference has at that position.
    """

    def __init__(self, sampler: Any = cached) -> None:
        self._sampler = sampler
        self.differences: list[float] = []
        self.deviations: list[float] = []

    def __call__(self, task: Task) -> Tensor:
        grid, count = task.grid, len(task.given)
        logits = np.zeros((count, task.ways, *grid, task.net.embedding.num_embeddings))
        codes: Tensor = self._sampler(task, logits)
        expected = task.net(codes.repeat_interleave(task.ways, 0), task.condition)
        found = torch.from_numpy(logits).flatten(0, 1).movedim(-1, 1)
        self.differences.append(float((found - expected).abs().max()))
        self.deviations.append(float(expected.std()))
        return codes


def drawn(
    module: Prior, sampler: MapSampler, choice: Choice, given: Sequence[Tensor] | None = None
) -> list[Tensor]:
    """Three samples."""
    return draw(
        module,
        seed=5,
        numbers=[0, 1, 7],
        choice=choice,
        rows=ROWS if module.covariates else None,
        given=given,
        sampler=sampler,
    )


def check(module: Prior, choice: Choice, given: Sequence[Tensor] | None = None) -> None:
    recorded = Recorded()
    expected = drawn(module, one_by_one, choice, given)
    found = drawn(module, recorded, choice, given)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
    assert min(recorded.deviations) >= 3
    assert max(recorded.differences) < 1e-9


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("case", CASES)
def test_it_draws_what_the_reference_draws(case: str, seed: int) -> None:
    check(prior(seed, **CASES[case]), Choice())


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("case", CASES)
def test_however_it_is_chosen(case: str, choice: str) -> None:
    check(prior(3, **CASES[case]), CHOICES[choice])


@pytest.mark.parametrize("choice", ["T = 1", "all"])
@pytest.mark.parametrize("number", [1, 14, 15, 59])
@pytest.mark.parametrize("case", ["3D", "attention"])
def test_it_completes_what_has_begun(case: str, number: int, choice: str) -> None:
    module = prior(4, **CASES[case])
    first = torch.randint(7, (3, number))
    check(module, CHOICES[choice], [first])
    assert torch.equal(
        drawn(module, cached, CHOICES[choice], [first])[0].flatten(1)[:, :number], first
    )


def test_samples_are_spread_over_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    module = prior(5, **CASES["covariates, levels, attention"])
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    check(module, CHOICES["guidance"])


def test_in_float32_it_is_the_reference_up_to_rounding() -> None:
    module = prior(6, **CASES["attention"]).float()
    codes = draw(module, seed=0, numbers=range(5), choice=Choice(), sampler=cached)
    expected = draw(module, seed=0, numbers=range(5), choice=Choice())
    assert torch.equal(codes[0], expected[0])


FAULTS = {
    "nothing": ("plane_loop", "", ""),
    "a row left where it was in the window": (
        "plane_loop", "            if back:\n", "            if back > 1:\n",
    ),
    "rows not forgotten at a new plane": (
        "cached_sampler", "part.rows.fill(0)", "part.rows[:0].fill(0)",
    ),
    "no link from rows to voxels": (
        "plane_loop", "copy(given, links[", "copy(given, 0 * links[",
    ),
    "no link from planes to rows": (
        "plane_loop", "voxel], terms.sums[layer,", "voxel], 0 * terms.sums[layer,",
    ),
    "no link from planes to voxels": (
        "plane_loop", "add(given, terms.sums[", "add(given, 0 * terms.sums[",
    ),
    "a row's gate without its condition": (
        "plane_loop", "add(total, terms.conditions[", "add(total, 0 * terms.conditions[",
    ),
    "a voxel's gate without its condition": (
        "plane_loop", "add(given, terms.conditions[", "add(given, 0 * terms.conditions[",
    ),
    "the voxel stream read one too early": (
        "plane_loop", "voxels[voxel + back, item, c]", "voxels[max(voxel + back - 1, 0), item, c]",
    ),
    "a voxel stream that is not residual": (
        "plane_loop", "stream[item, c] +=", "stream[item, c] =",
    ),
    "a code that the voxel stream does not see": (
        "plane_loop", "    if after < behind:", "    if after < 0:",
    ),
    "an attention that misses the last position": (
        "plane_loop", "scratch.attention[: position + 1]", "scratch.attention[: max(position, 1)]",
    ),
    "keys of the first head in all": ("plane_loop", "vector[head * part + c]", "vector[c]"),
    "an attention that does not see the code": (
        "plane_loop", "scratch.known[number, item, 2 * channels :]",
        "scratch.known[number, item, :0]",
    ),
    "another item's condition": (
        "plane_loop", "(first + item) % terms.conditions.shape[1]", "0 % terms.conditions.shape[1]",
    ),
    "a plane that does not move on": (
        "plane_stream", "        self._windows[layer] = window\n", "",
    ),
    "planes in the wrong order": (
        "plane_stream", "self._windows[layer][..., slab.shape[3] :], slab]",
        "slab, self._windows[layer][..., slab.shape[3] :]]",
    ),
    "a plane's gate without its condition": (
        "plane_stream", "gate(total + condition", "gate(total + 0 * condition",
    ),
    "a plane that does not see the one before": (
        "cached_sampler", "torch.from_numpy(embedded) if plane else None", "None",
    ),
    "noise of one plane too late": (
        "cached_sampler", "                task.noise(),",
        "                task.noise() * 0 + task.noise(),",
    ),
    "what was given drawn anew": (
        "cached_sampler", "                task.given.shape[1],\n", "                0,\n",
    ),
}  # fmt: skip
"""Name to module, text and what takes its place; the first is the control."""


def faulty(name: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The cached sampler with a fault in its source; the mended module is not compiled."""
    module, text, fault = FAULTS[name]
    path = Path(vqmri.prior.__file__).parent / f"{module}.py"
    source = path.read_text(encoding="utf-8")
    assert not text or source.count(text) == 1
    changed = ModuleType(f"{module}_with_a_fault")
    mended = source.replace(text, fault) if text else source
    with monkeypatch.context() as patch:
        patch.setattr(numba.config, "DISABLE_JIT", True)
        exec(compile(mended, str(path), "exec"), changed.__dict__)
    if module == "cached_sampler":
        return changed.__dict__["cached"]
    part = {"plane_loop": "draw_plane", "plane_stream": "PlaneStream"}[module]
    monkeypatch.setattr(cached_sampler, part, changed.__dict__[part])
    return cached


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_put_into_it_on_purpose_are_seen(
    fault: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that the tests above cannot pass by chance."""
    module = prior(7, **CASES["covariates, levels, attention"])
    begun = [torch.zeros(3, 0, dtype=torch.long), torch.randint(5, (3, 2))]
    choice = CHOICES["guidance"]
    recorded = Recorded(faulty(fault, monkeypatch))
    expected = drawn(module, one_by_one, choice, begun)
    found = drawn(module, recorded, choice, begun)
    same = all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    if fault == "nothing":
        assert same
        assert max(recorded.differences) < 1e-9
    else:
        assert not same
