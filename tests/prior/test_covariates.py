import json
import math
from typing import Any

import pytest
import torch

from tests.prior.cases import AGE, SITE, prior, random_maps
from vqmri.errors import InputError, ParamsError
from vqmri.prior.covariates import (
    Categorical,
    Continuous,
    Covariate,
    CovariateEmbedding,
    encode,
    fit_covariates,
    from_json,
    hide,
    known_rows,
    to_json,
)

BOTH: list[Covariate] = [AGE, SITE]


def test_numbers_are_continuous_and_have_the_moments_of_those_known() -> None:
    rows: list[dict[str, Any]] = [{"age": 20}, {"age": None}, {"age": 31.0}, {}, {"age": 30}]
    (found,) = fit_covariates(rows, ["age"])
    assert isinstance(found, Continuous)
    assert (found.minimum, found.maximum, found.mean) == (20, 31, 27)
    assert found.std == pytest.approx(math.sqrt((49 + 16 + 9) / 3))


def test_anything_else_is_categorical_with_sorted_values() -> None:
    rows: list[dict[str, Any]] = [
        {"site": "b", "digit": "10", "mixed": 2},
        {"site": "a", "digit": "9", "mixed": "x"},
        {"site": None, "digit": "9", "mixed": None},
        {"site": "b", "digit": "10", "mixed": None},
    ]
    with pytest.raises(InputError, match="numbers and texts"):
        fit_covariates(rows, ["mixed"])
    assert fit_covariates(rows, ["digit", "site"]) == [
        Categorical("digit", ("10", "9")),
        Categorical("site", ("a", "b")),
    ]
    assert fit_covariates(rows, []) == []


@pytest.mark.parametrize(
    ("rows", "fault"),
    [
        ([{"age": None}, {}], "'age' is known for none of the training subjects"),
        ([{"age": 3}, {"age": 3.0}, {}], "'age' is 3 for all of the training subjects"),
        ([{"age": "old"}, {"age": "old"}], "'age' is 'old' for all of the training subjects"),
    ],
)
def test_a_covariate_without_two_values_is_refused(rows: list[dict[str, Any]], fault: str) -> None:
    with pytest.raises(InputError, match=f"train_prior.conditions: {fault}.*Take it out"):
        fit_covariates(rows, ["age"])


def test_encoded_are_standardised_values_and_indices_and_nan_for_missing() -> None:
    found = encode(BOTH, [{"age": 65, "site": "c"}, {"age": "20"}, {"site": "a", "age": None}, {}])
    nan = math.nan
    expected = torch.tensor([[1.0, 2.0], [-2.0, nan], [nan, 0.0], [nan, nan]])
    torch.testing.assert_close(found, expected, equal_nan=True, rtol=0, atol=0)
    assert encode([], [{}, {}]).shape == (2, 0)
    assert encode(BOTH, []).shape == (0, 2)


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ({"sex": "F"}, r"sample\.covariates\.sex: no such covariate.*conditioned on age, site\."),
        ({"site": "d"}, r"sample\.covariates\.site = 'd': the prior was trained on a, b, c\."),
        ({"age": 80.5}, r"sample\.covariates\.age = 80\.5: .* 20 to 80\..*--extrapolate"),
        ({"age": 19}, r"sample\.covariates\.age = 19: .* 20 to 80\..*extrapolate: true"),
        ({"age": "old"}, r"sample\.covariates\.age = 'old': a number is needed"),
        ({"age": math.nan}, r"sample\.covariates\.age = nan: a number is needed"),
        ({"age": math.inf}, r"sample\.covariates\.age = inf: a number is needed"),
    ],
)
def test_what_the_prior_does_not_know_is_refused_with_what_is_allowed(
    row: dict[str, Any], fault: str
) -> None:
    with pytest.raises(ParamsError, match=fault):
        encode(BOTH, [{}, row])


def test_without_conditions_no_covariate_is_allowed() -> None:
    with pytest.raises(ParamsError, match=r"age: no such covariate.*trained without conditions"):
        encode([], [{"age": 3}])


def test_extrapolation_is_of_numbers_alone() -> None:
    assert encode(BOTH, [{"age": 95}], extrapolate=True)[0, 0] == 3
    for row in ({"age": math.inf}, {"site": "d"}):
        with pytest.raises(ParamsError):
            encode(BOTH, [row], extrapolate=True)


def test_of_real_subjects_what_was_never_seen_is_missing() -> None:
    rows: list[dict[str, Any]] = [
        {"age": 95, "site": "d", "diagnosis": "none"},
        {"age": None, "site": "b"},
        {"age": "unknown", "site": None},
        {},
    ]
    nan = math.nan
    expected = torch.tensor([[3.0, nan], [nan, 1.0], [nan, nan], [nan, nan]])
    torch.testing.assert_close(known_rows(BOTH, rows), expected, equal_nan=True, rtol=0, atol=0)


def test_json_and_back() -> None:
    assert from_json(json.loads(json.dumps(to_json(BOTH)))) == BOTH


def test_the_embedding_is_the_sum_of_one_vector_per_covariate() -> None:
    module = CovariateEmbedding(BOTH, 5)
    missing = module.missing.detach()
    age, site = module.embeddings
    rows = torch.tensor([[0.5, 2.0], [math.nan, 1.0], [-1.0, math.nan], [math.nan, math.nan]])
    of_site = site(torch.arange(3))
    expected = torch.stack(
        [
            age(torch.tensor([0.5])) + of_site[2],
            missing[0] + of_site[1],
            age(torch.tensor([-1.0])) + missing[1],
            missing[0] + missing[1],
        ]
    )
    torch.testing.assert_close(module(rows), expected)
    assert len({tuple(row) for row in module(rows).tolist()}) == 4


def test_the_gradient_reaches_the_vector_of_what_is_missing_and_no_other() -> None:
    module = CovariateEmbedding(BOTH, 5)
    module(torch.tensor([[math.nan, 1.0], [math.nan, 1.0]])).square().sum().backward()
    gradient = module.missing.grad
    assert gradient is not None
    assert (gradient[0] != 0).all()
    assert (gradient[1] == 0).all()
    assert all(
        p.grad is None or torch.isfinite(p.grad).all() for p in module.parameters()
    )  # a NaN that is not used may not poison the rest
    site = module.embeddings[1].weight.grad
    assert isinstance(site, torch.Tensor)
    assert (site != 0).any(dim=1).tolist() == [False, True, False]


def test_hiding_takes_whole_rows_and_of_the_rest_single_values() -> None:
    count, share = 40_000, 0.3
    rows = torch.ones(count, 3)
    hidden = hide(rows, share).isnan()
    assert not rows.isnan().any()
    whole = hidden.all(dim=1).double().mean()
    each = hidden.double().mean(dim=0)
    assert float(whole) == pytest.approx(share + (1 - share) * share**3, abs=0.01)
    assert each.tolist() == pytest.approx([share + (1 - share) * share] * 3, abs=0.01)


def test_a_single_covariate_is_hidden_with_the_share_itself() -> None:
    hidden = hide(torch.ones(40_000, 1), 0.3).isnan()
    assert float(hidden.double().mean()) == pytest.approx(0.3, abs=0.01)


def test_share_0_hides_nothing_and_1_everything() -> None:
    rows = torch.randn(200, 3)
    assert torch.equal(hide(rows, 0.0), rows)
    assert hide(rows, 1.0).isnan().all()


GRIDS, SIZES = [(4, 4), (2, 2), (2, 2)], [6, 3, 5]


@pytest.mark.parametrize("row", [{"age": 51.0}, {"site": "a"}, {"age": 70, "site": "c"}])
def test_every_map_of_a_prior_depends_on_each_covariate(row: dict[str, Any]) -> None:
    module = prior(GRIDS, SIZES, covariates=BOTH)
    values = random_maps(module, 2)
    known = encode(BOTH, [{"age": 50.0, "site": "b"}, {}])
    changed = encode(BOTH, [{"age": 50.0, "site": "b"} | row, {}])
    for index in range(len(GRIDS)):
        one, two = (module.logits(index, values, rows) for rows in (known, changed))
        assert (one[0] != two[0]).all()  # at every position
        assert torch.equal(one[1], two[1])  # the other item is another subject


def test_unknown_covariates_are_the_same_as_none_given() -> None:
    module = prior(GRIDS, SIZES, covariates=BOTH)
    values = random_maps(module, 2)
    unknown, known = encode(BOTH, [{}, {}]), encode(BOTH, [{}, {"age": 40}])
    plain = module(values)
    for nats, same, other in zip(
        plain, module(values, unknown), module(values, known), strict=True
    ):
        assert torch.equal(nats, same)
        assert torch.equal(nats[0], other[0])
        assert not torch.equal(nats[1], other[1])


def test_covariates_are_hidden_in_training_alone() -> None:
    values = rows = None
    for dropout in (0.0, 1.0):
        torch.manual_seed(0)
        module = prior(GRIDS, SIZES, covariates=BOTH, condition_dropout=dropout)
        values = random_maps(module, 2) if values is None else values
        rows = encode(BOTH, [{"age": 30, "site": "a"}, {"site": "c"}]) if rows is None else rows
        plain, known = module(values), module(values, rows)
        module.train()
        trained = module(values, rows)
        for nats, of_known, of_training in zip(plain, known, trained, strict=True):
            assert not torch.equal(nats, of_known)
            assert torch.equal(of_training, nats if dropout else of_known)
