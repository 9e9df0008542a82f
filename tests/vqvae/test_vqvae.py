from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from vqmri.quantizers import Quantized, Quantizer
from vqmri.vqvae import VQVAE, objective

COMMON: dict[str, Any] = {"commitment_cost": 0.25, "initialisation": "data"}
MOVING = COMMON | {"decay": 0.9}
PROJECTED = MOVING | {"kind": "projected", "projection_cost": 0.1}
QUANTIZERS: dict[str, dict[str, Any]] = {
    "codebook_loss": COMMON | {"kind": "codebook_loss"},
    "ema": MOVING | {"kind": "ema"},
    "projected": PROJECTED | {"num_gains": 3},
    "projected_real": PROJECTED | {"num_gains": None},
}
every_quantizer = pytest.mark.parametrize("quantizer", QUANTIZERS)

LEVELS: dict[str, dict[str, Any]] = {
    "one": {"channels": [8, 16], "downsamplings": [4], "num_embeddings": [8]},
    "two": {"channels": [8, 16], "downsamplings": [2, 4], "num_embeddings": [8, 6]},
    "three": {"channels": [8, 16, 8], "downsamplings": [2, 4, 8], "num_embeddings": [8, 6, 5]},
    "three, scales skipped": {
        "channels": [8, 16, 16, 8],
        "downsamplings": [2, 8, 16],
        "num_embeddings": [8, 6, 5],
    },
}
every_level = pytest.mark.parametrize("levels", LEVELS)
every_dimension = pytest.mark.parametrize("dims", [2, 3])


def model(quantizer: str = "ema", levels: str = "one", **changes: Any) -> VQVAE:
    arguments: dict[str, Any] = {
        "spatial_dims": 3,
        "in_channels": 1,
        "embedding_dim": 4,
        "quantizer": QUANTIZERS[quantizer],
    }
    arguments |= LEVELS[levels] | changes
    return VQVAE(num_res_blocks=[1] * len(arguments["channels"]), **arguments)


def random_volumes(
    net: VQVAE, dims: int, batch: int = 2, sides: Sequence[int] = (16, 32, 16)
) -> Tensor:
    images = torch.rand(batch, net.in_channels, *sides[:dims])
    if not net.num_classes:
        return images
    labels = torch.randint(net.num_classes, (batch, 1, *sides[:dims]))
    return torch.cat([images, labels.float()], dim=1)


def started(net: VQVAE, dims: int) -> VQVAE:
    """After one training batch, in evaluation mode."""
    net(random_volumes(net, dims))
    return net.eval()


@every_quantizer
@every_level
@every_dimension
def test_codes_are_those_announced_and_decode_to_the_reconstruction(
    quantizer: str, levels: str, dims: int
) -> None:
    net = started(model(quantizer, levels, spatial_dims=dims, in_channels=2), dims)
    volumes = random_volumes(net, dims)
    with torch.inference_mode():
        out, codes = net(volumes), net.encode(volumes)
        decoded = net.decode(codes)
        changed = net.decode([codes[0].flip(-1), *codes[1:]])
    assert out.outputs.shape == volumes.shape
    assert len(codes) == len(net.map_names) == len(net.downsamplings) == len(net.num_embeddings)
    for values, factor, number in zip(codes, net.downsamplings, net.num_embeddings, strict=True):
        assert values.shape == (2, *(n // factor for n in volumes.shape[2:]))
        assert values.dtype == (torch.int64 if number else torch.float32)
        if number:
            assert 0 <= int(values.min()) <= int(values.max()) < number
    torch.testing.assert_close(decoded, out.outputs, rtol=1e-4, atol=1e-4)
    assert not torch.equal(changed, decoded)


def test_maps_have_names_grids_and_sizes_of_their_own() -> None:
    plain, pairs = model("ema", "three"), model("projected", "three")
    assert plain.map_names == ("level_0", "level_1", "level_2")
    assert plain.downsamplings == (2, 4, 8)
    assert plain.num_embeddings == (8, 6, 5)
    assert pairs.map_names == (
        "level_0_gain", "level_0", "level_1_gain", "level_1", "level_2_gain", "level_2",
    )  # fmt: skip
    assert pairs.downsamplings == (2, 2, 4, 4, 8, 8)
    assert pairs.num_embeddings == (3, 8, 3, 6, 3, 5)
    assert model("projected_real", "two").num_embeddings == (0, 8, 0, 6)


@every_quantizer
@every_dimension
def test_coarser_codes_change_the_finer_ones_and_not_the_other_way_round(
    quantizer: str, dims: int
) -> None:
    """Other codes are put in the place of one level's: what is quantised after it must move."""
    net = started(model(quantizer, "three", spatial_dims=dims, num_embeddings=[64, 64, 64]), dims)
    volumes = random_volumes(net, dims)
    for overridden in range(3):
        seen: list[tuple[int, Tensor]] = []
        before: list[tuple[int, Tensor]] = []

        def plain(q: Quantizer, latents: Tensor, seen: Any = before) -> Quantized:
            seen.append((list(net.quantizers).index(q), latents))
            return q(latents)

        def other(
            q: Quantizer, latents: Tensor, seen: Any = seen, number: int = overridden
        ) -> Quantized:
            level = list(net.quantizers).index(q)
            seen.append((level, latents))
            quantized: Quantized = q(latents)
            if level != number:
                return quantized
            codes = [*quantized.codes[:-1], (quantized.codes[-1] + 7) % 64]
            return Quantized(q.decode(codes), codes, quantized.loss)

        with torch.no_grad():
            usual, changed = net.reconstruct(volumes, plain), net.reconstruct(volumes, other)
        assert [level for level, _ in seen] == [2, 1, 0]  # from the top down
        per_level = len(net.num_embeddings) // 3
        for (level, one), (_, two) in zip(before, seen, strict=True):
            assert torch.equal(one, two) == (level >= overridden)
            own = level * per_level + per_level - 1
            assert torch.equal(usual.codes[own], changed.codes[own]) == (level > overridden)
        assert not torch.equal(usual.outputs, changed.outputs)


def test_one_level_is_encoder_quantizer_and_decoder_in_a_row() -> None:
    net = started(model(), 3)
    volumes = random_volumes(net, 3)
    latents = net.to_latents[0](net.encoder(volumes)[1])
    quantized = net.quantizers[0](latents)
    out = net(volumes)
    assert torch.equal(out.codes[0], quantized.codes[0])
    assert torch.equal(out.quantizer_loss, quantized.loss)
    assert torch.equal(out.outputs, net.decoders[0](quantized.latents, None))


@pytest.mark.parametrize("quantizer", ["codebook_loss", "projected"])
def test_the_losses_of_all_levels_count(quantizer: str) -> None:
    net = started(model(quantizer, "three"), 3)
    losses: list[Tensor] = []

    def keep(q: Quantizer, latents: Tensor) -> Quantized:
        quantized: Quantized = q(latents)
        losses.append(quantized.loss)
        return quantized

    with torch.no_grad():
        found = net.reconstruct(random_volumes(net, 3), keep).quantizer_loss
    assert len(losses) == 3
    assert all(float(loss) > 0 for loss in losses)
    torch.testing.assert_close(found, losses[0] + losses[1] + losses[2])


@every_quantizer
def test_training_lowers_the_loss_and_reaches_every_parameter(quantizer: str) -> None:
    net = model(quantizer, "two", num_classes=2)
    volumes = random_volumes(net, 3, batch=4, sides=(8, 8, 8))
    optimiser = torch.optim.Adam(net.parameters(), lr=1e-2)
    losses = []
    for _ in range(30):
        terms = objective(net(volumes), volumes)
        optimiser.zero_grad()
        terms["loss"].backward()
        optimiser.step()
        losses.append(float(terms["mse"].detach()))
    assert min(losses[-5:]) < 0.5 * losses[0]
    assert all(p.grad is not None and (p.grad != 0).any() for p in net.parameters())


@every_quantizer
def test_the_reconstructions_gradient_goes_straight_through_every_level(quantizer: str) -> None:
    """Without the quantizers' own terms: to each level's latents and to the encoder before them."""
    net = started(model(quantizer, "three", spatial_dims=2), 2)
    latents: list[Tensor] = []

    def keep(q: Quantizer, found: Tensor) -> Quantized:
        found.retain_grad()
        latents.append(found)
        return q(found)

    net.reconstruct(random_volumes(net, 2), keep).outputs.square().sum().backward()
    assert all(each.grad is not None and (each.grad != 0).any() for each in latents)
    assert all(p.grad is not None and (p.grad != 0).any() for p in net.encoder.parameters())


@every_dimension
def test_labels_enter_as_one_channel_per_class(dims: int) -> None:
    net = model(spatial_dims=dims, in_channels=2, num_classes=3)
    volumes = random_volumes(net, dims)
    entered: list[Tensor] = []
    net.encoder.register_forward_pre_hook(lambda _, inputs: entered.append(inputs[0]))
    outputs = net(volumes).outputs
    assert outputs.shape == (2, 2 + 3, *volumes.shape[2:])
    assert torch.equal(entered[0][:, :2], volumes[:, :2])
    for label in range(3):
        assert torch.equal(entered[0][:, 2 + label], (volumes[:, 2] == label).float())


@every_dimension
def test_volumes_of_outputs_are_clipped_intensities_and_the_likeliest_label(dims: int) -> None:
    net = model(spatial_dims=dims, in_channels=2, num_classes=3)
    outputs = 2 * torch.randn(2, 5, *(4, 6, 2)[:dims])
    found = net.to_volumes(outputs)
    assert found.shape == (2, 3, *outputs.shape[2:])
    assert torch.equal(found[:, :2], outputs[:, :2].clamp(0, 1))
    chosen = torch.gather(outputs[:, 2:], 1, found[:, 2:].long())
    assert torch.equal(chosen[:, 0], outputs[:, 2:].amax(dim=1))


def test_without_labels_volumes_are_the_clipped_outputs() -> None:
    outputs = 2 * torch.randn(2, 1, 4, 4, 4)
    assert torch.equal(model().to_volumes(outputs), outputs.clamp(0, 1))
    half = outputs.bfloat16()
    assert torch.equal(model().to_volumes(half), half.float().clamp(0, 1))
