import torch

from vqmri.quantizers.clusters import dead_codes, draw, kmeans, quantiles, totals
from vqmri.quantizers.nearest import squared_distances


def test_draw_takes_tokens_and_none_twice() -> None:
    tokens = torch.arange(10.0).unsqueeze(1)
    drawn = draw(tokens, 7).flatten()
    assert len(drawn.unique()) == 7
    assert torch.isin(drawn, tokens).all()
    assert draw(tokens, 25).flatten().unique(return_counts=True)[1].max() == 3


def test_totals_by_hand() -> None:
    tokens = torch.tensor([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    counts, sums = totals(tokens, torch.tensor([2, 0, 2]), 4)
    assert counts.tolist() == [1, 0, 2, 0]
    assert sums.tolist() == [[3, 4], [0, 0], [6, 8], [0, 0]]


def within(tokens: torch.Tensor, vectors: torch.Tensor) -> float:
    return float(squared_distances(tokens, vectors).min(dim=1).values.mean())


def test_kmeans_is_nearer_to_the_tokens_than_a_draw() -> None:
    tokens = torch.randn(2000, 4)
    torch.manual_seed(1)
    drawn = draw(tokens, 32)
    torch.manual_seed(1)
    assert within(tokens, kmeans(tokens, 32)) < 0.85 * within(tokens, drawn)


def test_kmeans_vectors_are_means_of_their_clusters() -> None:
    centres = torch.tensor([[0.0], [100.0], [200.0]])
    tokens = (centres + torch.randn(3, 50)).reshape(-1, 1)
    for seed in range(5):  # some draws have two vectors in one cluster
        torch.manual_seed(seed)
        found = kmeans(tokens, 3)
        assert within(tokens, found) <= within(tokens, draw(tokens, 3))
        assert torch.isfinite(found).all()


def test_kmeans_moves_empty_clusters() -> None:
    tokens = torch.cat([torch.zeros(900, 1), torch.arange(1.0, 101).unsqueeze(1)])
    # most drawn vectors are equal, and all but the first of those are empty
    assert len(kmeans(tokens, 50).unique()) > len(draw(tokens, 50).unique())


def test_quantiles_are_the_middles_of_equal_shares() -> None:
    values = torch.randperm(100).float().unsqueeze(1)
    assert quantiles(values, 4).flatten().tolist() == [12, 37, 62, 87]
    assert quantiles(values[:1], 3).flatten().tolist() == [values[0].item()] * 3


def test_dead_is_relative_to_the_mean_use() -> None:
    counts = torch.tensor([4.0, 0.09, 0.11, 0.0, 0.8])
    assert dead_codes(counts).tolist() == [False, True, False, True, False]
    assert dead_codes(counts * 1e-3).tolist() == [False, True, False, True, False]
