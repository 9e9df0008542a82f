import math
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.prior.cases import AGE, SITE, prior
from vqmri.prior import Prior
from vqmri.prior.cached_sampler import cached
from vqmri.prior.choice import Choice, choose, choose_all
from vqmri.prior.covariates import encode
from vqmri.prior.gain import GaussianGain
from vqmri.prior.sampler import Drawing, MapSampler, draw, jacobi, one_by_one

NUMBERS = [0, 5, 2]
SUBJECTS: list[dict[str, Any]] = [{"age": 30, "site": "b"}, {"age": 77.5}, {}]

CASES: dict[str, tuple[list[tuple[int, ...]], list[int], dict[str, Any]]] = {
    "one map": ([(3, 4, 2)], [6], {}),
    "one map in 2D with attention": ([(5, 4)], [6], {"num_attention": 2, "heads": 2}),
    "two levels": ([(4, 4, 2), (2, 2, 1)], [6, 5], {}),
    "quantised gains": ([(3, 2, 2), (3, 2, 2)], [4, 6], {}),
    "two levels with quantised gains": ([(4, 4), (4, 4), (2, 2), (2, 2)], [3, 6, 4, 5], {}),
    "two levels with real gains": ([(4, 4), (4, 4), (2, 2), (2, 2)], [0, 6, 0, 5], {}),
    "covariates": ([(4, 4), (2, 2)], [6, 5], {"covariates": [AGE, SITE]}),
}
every_case = pytest.mark.parametrize("case", CASES)


def built(case: str) -> tuple[Prior, Tensor]:
    """A prior whose logits differ widely, so that a wrong context would change the draws.

    The seed is one with which no code wins at every position.
    """
    torch.manual_seed(5)
    grids, num_embeddings, options = CASES[case]
    module = prior(grids, num_embeddings, std=0.6, **({"channels": 8} | options))
    for gain in module.maps:
        if isinstance(gain, GaussianGain):
            gain.mean.copy_(torch.randn(len(gain.mean)))
            gain.std.copy_(torch.rand(len(gain.std)))
    rows = encode(module.covariates, SUBJECTS if module.covariates else [{}] * len(NUMBERS))
    return module, rows


def explained(
    module: Prior,
    index: int,
    drawn: list[Tensor],
    rows: Tensor,
    temperature: float,
    guidance: float,
) -> np.ndarray:
    """What one forward over the finished maps, the noise and the formulas say that a map is."""
    noise, grid = Drawing(3, NUMBERS, index), module.grids[index]
    gain = module.maps[index]
    if isinstance(gain, GaussianGain):
        codes = drawn[index + 1]
        normal = torch.from_numpy(noise.normal(grid)).float()
        return (gain.mean[codes] + temperature**0.5 * gain.std[codes] * normal).numpy()
    with torch.no_grad():
        with_rows = module.logits(index, drawn, rows).numpy()
        without = module.logits(index, drawn, module.unknown(len(rows))).numpy()
    logits = without + guidance * (with_rows - without)
    if temperature:
        planes = [
            noise.exponential((*grid[-2:], logits.shape[1])) for _ in range(math.prod(grid[:-2]))
        ]
        gumbel = -np.log(np.concatenate(planes, axis=1).astype(np.float64))
        logits = logits / temperature + np.moveaxis(gumbel, 3, 1).reshape(logits.shape)
    return np.asarray(logits.argmax(axis=1))


@every_case
@pytest.mark.parametrize("temperature", [1.0, 0.7, 0.0])
def test_every_draw_is_the_argmax_of_the_whole_nets_logits_and_the_noise(
    case: str, temperature: float
) -> None:
    """One forward over the finished codes must explain every draw that was made on the way."""
    module, rows = built(case)
    drawn = draw(module, seed=3, numbers=NUMBERS, choice=Choice(temperature), rows=rows)
    for index, values in enumerate(drawn):
        expected = explained(module, index, drawn, rows, temperature, 1.0)
        np.testing.assert_allclose(values.numpy(), expected, rtol=1e-12)
        assert len(values.unique()) > 1


@pytest.mark.parametrize("guidance", [0.0, 0.5, 1.0, 2.0])
def test_guidance_weighs_the_logits_with_and_without_covariates(guidance: float) -> None:
    module, rows = built("covariates")
    drawn = draw(module, seed=3, numbers=NUMBERS, choice=Choice(0.8, guidance=guidance), rows=rows)
    for index, codes in enumerate(drawn):
        expected = explained(module, index, drawn, rows, 0.8, guidance)
        assert (codes.numpy() == expected).all()


def test_guidance_of_one_is_the_prior_of_zero_no_covariates_and_of_more_something_else() -> None:
    module, rows = built("covariates")

    def drawn(guidance: float = 1.0, rows: Tensor | None = None) -> list[list[Any]]:
        choice = Choice(guidance=guidance)
        return [m.tolist() for m in draw(module, seed=1, numbers=NUMBERS, choice=choice, rows=rows)]

    assert drawn(0.0, rows) == drawn()
    assert drawn(3.0) == drawn()
    assert drawn(2.0, rows) != drawn(1.0, rows) != drawn()


@every_case
def test_a_sample_depends_on_seed_and_number_and_on_no_other_sample(case: str) -> None:
    module, rows = built(case)
    rows = torch.cat([rows, rows[:1]])
    first = draw(module, seed=1, numbers=[0, 1, 2, 3], choice=Choice(), rows=rows)
    others = rows[[3, 1, 0, 3]]
    other = draw(module, seed=1, numbers=[7, 1, 9, 3], choice=Choice(), rows=others)
    for a, b in zip(first, other, strict=True):
        assert torch.equal(a[1], b[1])
        assert torch.equal(a[3], b[3])
    assert not torch.equal(first[0][0], other[0][0])
    assert not torch.equal(first[0][0], first[0][3])  # the same covariates, another number
    reseeded = draw(module, seed=2, numbers=[0, 1, 2, 3], choice=Choice(), rows=rows)
    assert not torch.equal(first[0][1], reseeded[0][1])


@every_case
def test_temperature_zero_gives_the_likeliest_whatever_the_seed(case: str) -> None:
    module, rows = built(case)
    first, second = (
        draw(module, seed=seed, numbers=numbers, choice=Choice(0.0), rows=rows)
        for seed, numbers in ((0, NUMBERS), (8, [3, 1, 9]))
    )
    for index, (one, other) in enumerate(zip(first, second, strict=True)):
        assert torch.equal(one, other)
        gain = module.maps[index]
        likeliest = (
            gain.mean[first[index + 1]]
            if isinstance(gain, GaussianGain)
            else module.logits(index, first, rows).argmax(dim=1)
        )
        assert torch.equal(one, likeliest)


def test_a_low_temperature_comes_near_to_none() -> None:
    module, rows = built("two levels")
    near, none = (
        draw(module, seed=0, numbers=NUMBERS, choice=Choice(t), rows=rows) for t in (1e-6, 0.0)
    )
    assert all(torch.equal(a, b) for a, b in zip(near, none, strict=True))


def test_frequencies_follow_the_distribution() -> None:
    """The first position's draws over many samples against softmax of its logits."""
    module = prior([(1, 1, 1)], [6], std=0.5).float()
    codes = [torch.zeros(1, 1, 1, 1, dtype=torch.long)]
    logits = module.logits(0, codes, module.unknown(1)).flatten().detach() / 0.5
    drawn = draw(module, seed=0, numbers=range(4000), choice=Choice(0.5))[0]
    counts = Counter(drawn.flatten().tolist())
    expected = torch.softmax(logits, dim=0).numpy() * 4000
    chi_squared = sum((counts[k] - expected[k]) ** 2 / expected[k] for k in range(6))
    assert chi_squared < 20.5  # 5 degrees of freedom, p = 0.001


def test_streams_of_noise_are_all_different() -> None:
    keys = [(seed, number, index) for seed in (0, 1) for number in (0, 1, 7) for index in (0, 1, 2)]
    drawn = {tuple(Drawing(s, [n], i).exponential((4,))[0]) for s, n, i in keys}
    assert len(drawn) == len(keys)


def test_no_code_wins_whatever_its_probability_is() -> None:
    """Float32 noise is 0 once in 2²³ numbers; the third plane of this stream holds one."""
    shape, drawing = (10, 9, 128), Drawing(0, [239], 0)
    stream = np.random.Generator(np.random.Philox(key=[0, 239], counter=[0, 0, 0, 0]))
    for _ in range(2):
        plain = stream.standard_exponential(shape, dtype=np.float32)
        assert np.array_equal(drawing.exponential(shape)[0], plain)
    plain = stream.standard_exponential(shape, dtype=np.float32)
    (place,) = np.argwhere(plain == 0)
    noise = drawing.exponential(shape)[0]
    assert 0 < noise[tuple(place)] <= 2.0**-23
    assert np.array_equal(noise[plain > 0], plain[plain > 0])
    p = np.full(128, 1e-15, dtype=np.float32)
    p[7] = 1
    logits, row = np.log(p)[None], noise[tuple(place[:2])]
    for choice in (Choice(), Choice(0.5), Choice(top_k=1)):
        assert choose(logits, row, choice.plain, np.empty_like(p)) == 7
        assert choose_all(torch.from_numpy(logits), torch.from_numpy(row), choice) == 7


def test_noise_is_of_a_sample_and_goes_on_from_plane_to_plane() -> None:
    both, one = Drawing(3, [5, 6], 1), Drawing(3, [6], 1)
    first, second = both.exponential((2, 3, 4)), both.exponential((2, 3, 4))
    assert np.array_equal(one.exponential((2, 3, 4))[0], first[1])
    assert np.array_equal(one.exponential((2, 3, 4))[0], second[1])
    assert not np.array_equal(first, second)
    normal = Drawing(3, [5, 6], 1).normal((2, 3))
    assert np.array_equal(normal[1], Drawing(3, [6], 1).normal((2, 3))[0])
    assert not np.array_equal(normal[0], normal[1])


@pytest.mark.parametrize("guidance", [1.0, 2.0])
@every_case
def test_jacobi_settles_on_the_same_codes(case: str, guidance: float) -> None:
    module, rows = built(case)
    for choice in (Choice(guidance=guidance), Choice(0.6, top_k=3, guidance=guidance)):
        expected, found = (
            draw(module, seed=3, numbers=NUMBERS, choice=choice, rows=rows, sampler=sampler)
            for sampler in (one_by_one, jacobi)
        )
        for one, other in zip(found, expected, strict=True):
            assert torch.equal(one, other)


@pytest.mark.parametrize("sampler", [one_by_one, jacobi, cached])
def test_completion_keeps_what_is_given_and_draws_the_rest_as_if_it_had_been_drawn(
    sampler: MapSampler,
) -> None:
    """The beginning of a draw, given back, leads to the same end: only the past is looked at."""
    module, rows = built("two levels")
    options: dict[str, Any] = {"seed": 3, "numbers": NUMBERS, "choice": Choice(), "rows": rows}
    whole = draw(module, sampler=sampler, **options)
    given = [whole[0].flatten(1)[:, :11], whole[1].flatten(1)]
    again = draw(module, sampler=sampler, given=given, **options)
    assert all(torch.equal(a, b) for a, b in zip(again, whole, strict=True))
    given[0] = (given[0] + 1) % 6
    other = draw(module, sampler=sampler, given=given, **options)
    assert torch.equal(other[0].flatten(1)[:, :11], given[0])
    assert torch.equal(other[1], whole[1])
    assert not torch.equal(other[0].flatten(1)[:, 11:], whole[0].flatten(1)[:, 11:])


def test_a_lower_map_cannot_be_given_before_the_one_above_it_is_whole() -> None:
    module, rows = built("two levels")
    given = [torch.zeros(3, 1, dtype=torch.long), torch.zeros(3, 3, dtype=torch.long)]
    with pytest.raises(ValueError, match="map 0 has given values while map 1"):
        draw(module, seed=0, numbers=NUMBERS, choice=Choice(), rows=rows, given=given)


@pytest.mark.parametrize("code", [-1, 99])
def test_what_is_given_has_codes_of_the_codebook(code: int) -> None:
    module, rows = built("two levels")
    given = [torch.zeros(3, 0, dtype=torch.long), torch.full((3, 2), code)]
    with pytest.raises(ValueError, match="map 1 has codes outside 0 to"):
        draw(module, seed=0, numbers=NUMBERS, choice=Choice(), rows=rows, given=given)


@pytest.mark.parametrize("sampler", [one_by_one, jacobi, cached])
def test_progress_counts_every_position_of_codes(sampler: MapSampler) -> None:
    counted: list[int] = []
    module, _ = built("two levels with real gains")
    choice = Choice()
    draw(module, seed=0, numbers=[0], choice=choice, sampler=sampler, progress=counted.append)
    assert sum(counted) == 4 * 4 + 2 * 2
