from itertools import pairwise

import pytest
import torch

from tests.vqvae.test_vqvae import model, started
from vqmri.vqvae.tiles import OVERLAP, core, core_within, covered, tiles, weights

CASES = [
    ((32, 48, 16), (16, 16, 16), 4),
    ((40, 56, 40), (24, 32, 40), 8),
    ((160, 224), (96, 96), 16),
    ((24,), (16,), 8),
    ((16, 16, 16), (32, 16, 16), 4),
]


@pytest.mark.parametrize(("space", "size", "align"), CASES)
def test_cores_divide_the_grid_and_lie_in_their_tiles(
    space: tuple[int, ...], size: tuple[int, ...], align: int
) -> None:
    whole = torch.arange(torch.Size(space).numel()).reshape(space)
    rebuilt, hits = torch.zeros_like(whole), torch.zeros_like(whole)
    for tile in tiles(space, size, align):
        for span, n, side in zip(tile, space, size, strict=True):
            assert span.stop - span.start == min(n, side)
            assert span.start % align == span.first % align == span.last % align == 0
        rebuilt[core(tile)] = whole[covered(tile)][core_within(tile)]
        hits[core(tile)] += 1
    assert torch.equal(rebuilt, whole)
    assert (hits == 1).all()


@pytest.mark.parametrize(("space", "size", "align"), CASES)
def test_weights_add_up_to_one(space: tuple[int, ...], size: tuple[int, ...], align: int) -> None:
    found = tiles(space, size, align)
    total = torch.zeros(space)
    for tile, weight in zip(found, weights(found), strict=True):
        total[covered(tile)] += weight
    torch.testing.assert_close(total, torch.ones(space))


def test_neighbours_share_what_was_promised() -> None:
    spans = [tile[0] for tile in tiles((160,), (48,), 8)]
    for before, after in pairwise(spans):
        assert before.stop - after.start >= OVERLAP * 48 - 8


@pytest.mark.parametrize("levels", ["one", "two"])
def test_one_tile_is_the_whole(levels: str) -> None:
    net = started(model(levels=levels), 3)
    volumes = torch.rand(2, 1, 16, 32, 16)
    codes, outputs = net.encode(volumes), net.decode(net.encode(volumes))
    net.patch = [16, 32, 16]
    assert all(torch.equal(a, b) for a, b in zip(codes, net.encode(volumes), strict=True))
    assert torch.equal(net.decode(codes), outputs)


@pytest.mark.parametrize("levels", ["one", "two", "three, scales skipped"])
@pytest.mark.parametrize("quantizer", ["ema", "projected"])
def test_a_large_volume_is_done_in_tiles(levels: str, quantizer: str) -> None:
    net = started(model(quantizer, levels, patch=[16, 32, 16]), 3)
    volumes = torch.rand(1, 1, 16, 64, 32)
    codes = net.encode(volumes)
    first = net.encode(volumes[..., :16, :32, :16])
    for whole, part, factor in zip(codes, first, net.downsamplings, strict=True):
        assert whole.shape[1:] == (16 // factor, 64 // factor, 32 // factor)
        assert torch.equal(whole[..., 0, 0, 0], part[..., 0, 0, 0])
    outputs = net.decode(codes)
    assert outputs.shape == volumes.shape
    torch.testing.assert_close(outputs, net(volumes).outputs)
    pairs = zip(codes, net.downsamplings, strict=True)
    near = net.decode([values[..., : 16 // f, : 32 // f, : 16 // f] for values, f in pairs])
    alone = (..., slice(0, 8), slice(0, 16), slice(0, 8))  # no other tile covers these
    torch.testing.assert_close(outputs[alone], near[alone])


def test_training_is_never_in_tiles() -> None:
    net, twin = model(patch=[16, 16, 16]).train(), model().train()
    volumes = torch.rand(1, 1, 16, 32, 16)
    net(volumes)
    twin.load_state_dict(net.state_dict())
    assert torch.equal(net(volumes).outputs, twin(volumes).outputs)
