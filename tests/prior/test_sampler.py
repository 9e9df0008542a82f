from collections import Counter

import numpy as np
import pytest
import torch

from vqmri.prior import Prior
from vqmri.prior.sampler import Drawing, draw


def small(levels: int = 1, scale: float = 0.6) -> Prior:
    """A prior whose logits differ widely, so that a wrong context would change the draws."""
    grids = [(4, 4, 2), (2, 2, 1)][:levels]
    prior = Prior(
        grids=grids,
        num_embeddings=[6, 5][:levels],
        channels=8,
        num_layers=3,
        kernel=3,
        radius=2,
        dropout=0.3,
    ).double()
    for parameter in prior.parameters():
        torch.nn.init.normal_(parameter, std=scale)
    return prior.eval()


@pytest.mark.parametrize("levels", [1, 2])
@pytest.mark.parametrize("temperature", [1.0, 0.7])
def test_every_draw_is_the_argmax_of_the_whole_nets_logits_and_the_noise(
    levels: int, temperature: float
) -> None:
    """One forward over the finished codes must explain every draw that was made on the way."""
    prior = small(levels)
    drawn = draw(prior, seed=3, numbers=[0, 1, 2], temperature=temperature)
    logits = prior(drawn)
    assert float(logits[0].detach().std()) > 3
    for level, grid in enumerate(prior.grids):
        noise = Drawing(3, [0, 1, 2], level, prior.num_embeddings[level])
        for position in np.ndindex(*grid):
            here = logits[level][(slice(None), slice(None), *position)].detach().numpy()
            expected = np.argmax(here / temperature + noise.gumbel(), axis=1)
            assert (drawn[level][(slice(None), *position)].numpy() == expected).all(), position


def test_a_sample_depends_on_seed_and_number_and_on_no_other_sample() -> None:
    prior = small(2)
    first = draw(prior, seed=1, numbers=[0, 1, 2, 3], temperature=1.0)
    other = draw(prior, seed=1, numbers=[7, 1, 9, 3], temperature=1.0)
    for a, b in zip(first, other, strict=True):
        assert torch.equal(a[1], b[1])
        assert torch.equal(a[3], b[3])
    assert not torch.equal(first[0][0], other[0][0])
    reseeded = draw(prior, seed=2, numbers=[0], temperature=1.0)
    assert not torch.equal(first[0][:1], reseeded[0])


def test_frequencies_follow_the_distribution() -> None:
    """The first position's draws over many samples against softmax of its logits."""
    prior = Prior(
        grids=[(1, 1, 1)], num_embeddings=[6], channels=8, num_layers=2, kernel=2, radius=1,
        dropout=0.0,
    ).eval()  # fmt: skip
    for parameter in prior.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    logits = prior([torch.zeros(1, 1, 1, 1, dtype=torch.long)])[0].flatten().detach() / 0.5
    drawn = draw(prior, seed=0, numbers=range(4000), temperature=0.5)[0]
    counts = Counter(drawn.flatten().tolist())
    expected = torch.softmax(logits, dim=0).numpy() * 4000
    chi_squared = sum((counts[k] - expected[k]) ** 2 / expected[k] for k in range(6))
    assert chi_squared < 20.5  # 5 degrees of freedom, p = 0.001


def test_low_temperature_gives_the_most_likely_code() -> None:
    prior = small()
    drawn = draw(prior, seed=0, numbers=[0, 1], temperature=1e-6)[0]
    assert torch.equal(drawn[0], drawn[1])
    assert torch.equal(prior([drawn])[0].argmax(dim=1), drawn)


def test_progress_counts_every_position() -> None:
    counted: list[int] = []
    draw(small(2), seed=0, numbers=[0], temperature=1.0, progress=counted.append)
    assert sum(counted) == 4 * 4 * 2 + 2 * 2 * 1
