from typing import Any

import pytest
import torch

from vqmri.vqvae import VQVAE, objective


def model(**changes: Any) -> VQVAE:
    arguments: dict[str, Any] = {
        "spatial_dims": 3,
        "in_channels": 1,
        "channels": [8, 16],
        "num_res_blocks": 1,
        "downsamplings": [4],
        "num_embeddings": [8],
        "embedding_dim": 4,
        "decay": 0.9,
        "commitment_cost": 0.25,
    }
    return VQVAE(**(arguments | changes))


CASES: list[tuple[dict[str, Any], tuple[int, ...], list[tuple[int, ...]]]] = [
    ({}, (8, 12, 16), [(2, 3, 4)]),
    ({"spatial_dims": 2}, (8, 12), [(2, 3)]),
    ({"downsamplings": [2, 4], "num_embeddings": [8, 6]}, (8, 12, 16), [(4, 6, 8), (2, 3, 4)]),
    (
        {"spatial_dims": 2, "channels": [8, 16, 16, 8], "downsamplings": [2, 4, 16],
         "num_embeddings": [8, 6, 5], "in_channels": 3},
        (16, 32), [(8, 16), (4, 8), (1, 2)],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "space", "grids"), CASES)
def test_codes_and_reconstruction_have_their_shapes(
    changes: dict[str, Any], space: tuple[int, ...], grids: list[tuple[int, ...]]
) -> None:
    net = model(**changes)
    volumes = torch.rand(2, changes.get("in_channels", 1), *space)
    out = net(volumes)
    assert out.volumes.shape == volumes.shape
    assert [tuple(level.shape[1:]) for level in out.codes] == grids
    for level, number in zip(out.codes, net.num_embeddings, strict=True):
        assert int(level.min()) >= 0
        assert int(level.max()) < number


@pytest.mark.parametrize(("changes", "space", "grids"), CASES)
def test_decode_of_encode_is_the_reconstruction(
    changes: dict[str, Any], space: tuple[int, ...], grids: list[tuple[int, ...]]
) -> None:
    net = model(**changes)
    volumes = torch.rand(2, changes.get("in_channels", 1), *space)
    net(volumes)
    net.eval()
    with torch.inference_mode():
        torch.testing.assert_close(net.decode(net.encode(volumes)), net(volumes).volumes)


def test_finer_codes_are_encoded_given_the_coarser_ones() -> None:
    net = model(downsamplings=[2, 4], num_embeddings=[32, 8])
    volumes = torch.rand(1, 1, 8, 8, 8)
    net(volumes)
    net.eval()
    before = net.encode(volumes)
    top = net.quantizers[1]
    assert isinstance(top.codebook, torch.Tensor)
    top.codebook.mul_(-50)  # other coarse vectors for the same scan
    after = net.encode(volumes)
    assert not torch.equal(before[0], after[0])


def test_training_lowers_the_loss_and_reaches_every_parameter() -> None:
    net = model()
    volumes = torch.rand(4, 1, 8, 8, 8)
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-2)
    losses = []
    for _ in range(30):
        terms = objective(net(volumes), volumes)
        optimiser.zero_grad()
        terms.loss.backward()
        optimiser.step()
        losses.append(float(terms.mse.detach()))
    assert min(losses[-5:]) < 0.5 * losses[0]
    assert all(p.grad is not None for p in net.parameters())
    assert any(p.grad.abs().sum() > 0 for p in net.encoder.parameters() if p.grad is not None)


def test_loss_is_the_sum_of_its_terms() -> None:
    net = model()
    volumes = torch.rand(2, 1, 8, 8, 8)
    out = net(volumes)
    terms = objective(out, volumes)
    torch.testing.assert_close(terms.mse, (out.volumes - volumes).square().mean())
    torch.testing.assert_close(terms.loss, terms.mse + terms.quantizer)
