"""A code from logits: the compiled choice, the one in PyTorch, and what they must amount to."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from vqmri.prior.choice import Choice, choose, choose_all

CHOICES = [
    Choice(),
    Choice(0.0),
    Choice(0.6),
    Choice(1.5, top_k=3),
    Choice(top_p=0.7),
    Choice(0.8, top_k=5, top_p=0.9),
    Choice(guidance=2.5),
    Choice(1.2, top_k=4, top_p=0.8, guidance=0.5),
]


def probabilities(logits: np.ndarray, choice: Choice) -> np.ndarray:
    """In plain words: mix, divide, cut off, normalise."""
    mixed = (
        logits[-1] + choice.guidance * (logits[0] - logits[-1]) if len(logits) > 1 else logits[0]
    )
    if choice.temperature == 0:
        return np.eye(len(mixed))[mixed.argmax()]
    p = np.exp(mixed / choice.temperature - (mixed / choice.temperature).max())
    p /= p.sum()
    order = np.argsort(-p)
    if choice.top_k is not None:
        p[order[choice.top_k :]] = 0
        p /= p.sum()
    if choice.top_p is not None:
        needed = int(np.searchsorted(np.cumsum(p[order]), choice.top_p)) + 1
        p[order[needed:]] = 0
    return np.asarray(p / p.sum())


@pytest.mark.parametrize("choice", CHOICES, ids=str)
@pytest.mark.parametrize("ways", [1, 2])
def test_both_forms_choose_the_same_codes(choice: Choice, ways: int) -> None:
    random = np.random.default_rng(0)
    logits = random.normal(size=(200, ways, 12)) * 3
    noise = random.standard_exponential((200, 12), dtype=np.float32)
    scratch = np.empty(12)
    found = [
        choose(one, drawn, choice.plain, scratch) for one, drawn in zip(logits, noise, strict=True)
    ]
    expected = choose_all(torch.from_numpy(logits).movedim(1, 0), torch.from_numpy(noise), choice)
    assert found == expected.tolist()


@pytest.mark.parametrize("choice", CHOICES, ids=str)
def test_codes_come_as_often_as_their_probabilities_say(choice: Choice) -> None:
    random = np.random.default_rng(1)
    logits = random.normal(size=(2, 8)) * 1.5
    expected = probabilities(logits, choice)
    count = 20_000
    noise = torch.from_numpy(random.standard_exponential((count, 8), dtype=np.float32))
    repeated = torch.from_numpy(logits).unsqueeze(1).expand(2, count, 8)
    counts = np.bincount(choose_all(repeated, noise, choice).numpy(), minlength=8)
    assert (counts[expected == 0] == 0).all()
    kept = expected > 0
    if kept.sum() > 1:
        assert stats.chisquare(counts[kept], expected[kept] * count).pvalue > 1e-3


def test_codes_as_likely_as_the_last_one_kept_are_kept_too() -> None:
    logits = torch.tensor([[0.0, 2.0, 2.0, 1.0]]).expand(4000, 4).unsqueeze(0)
    noise = torch.from_numpy(np.random.default_rng(0).standard_exponential((4000, 4)))
    for choice in (Choice(top_k=1), Choice(top_p=0.1)):
        assert set(choose_all(logits, noise, choice).tolist()) == {1, 2}
        scratch = np.empty(4)
        plain = [choose(logits[:, 0].numpy(), e, choice.plain, scratch) for e in noise.numpy()]
        assert set(plain) == {1, 2}


def test_a_change_in_the_last_bits_changes_hardly_any_draw() -> None:
    """Why it is a race and no cumulative sum, in which every code's boundary would move."""
    random = np.random.default_rng(0)
    logits = torch.from_numpy(random.normal(size=(1, 20_000, 256)) * 3)
    noise = torch.from_numpy(random.standard_exponential((20_000, 256), dtype=np.float32))
    moved = logits + torch.from_numpy(random.normal(size=logits.shape)) * 1e-5
    changed = choose_all(logits, noise, Choice()) != choose_all(moved, noise, Choice())
    assert changed.double().mean() < 1e-4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -0.1}, "temperature -0.1"),
        ({"top_k": 0}, "top_k 0 keeps no code"),
        ({"top_p": 0.0}, "top_p 0.0"),
        ({"top_p": 1.1}, "top_p 1.1"),
    ],
)
def test_numbers_out_of_range_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Choice(**options)


def test_logits_that_are_not_finite_are_no_code() -> None:
    scratch = np.empty(3)
    with pytest.raises(ValueError, match="not finite"):
        choose(np.array([[np.nan, 0.0, 1.0]]), np.ones(3, np.float32), Choice().plain, scratch)
