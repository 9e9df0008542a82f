import itertools
import math
from typing import Any

import numpy as np
import pytest
import torch

from tests.prior.cases import AGE, SITE
from vqmri.evaluation.unusualness import spread, unusualness
from vqmri.prior import Prior
from vqmri.prior.covariates import encode, to_json
from vqmri.shapes import Box
from vqmri.vqvae import VQVAE

SPACE = (8, 12, 8)
BOX: Box = ((0, 8), (5, 11), (1, 8))  # the positions at y 0 are padding, others partly so
KINDS: dict[str, dict[str, Any]] = {
    "ema": {"kind": "ema"},
    "projected": {"kind": "projected", "projection_cost": 0.1, "num_gains": 3},
    "real gains": {"kind": "projected", "projection_cost": 0.1, "num_gains": None},
}


def models(kind: str, downsamplings: list[int]) -> tuple[VQVAE, Prior]:
    """A VQ-VAE after one batch and a scattered prior over its codes, in evaluation mode."""
    vqvae = VQVAE(
        spatial_dims=3, in_channels=1, channels=[8, 8], num_res_blocks=[1, 1],
        downsamplings=downsamplings, num_embeddings=[8, 6][: len(downsamplings)], embedding_dim=4,
        quantizer={"decay": 0.9, "commitment_cost": 0.25, "initialisation": "data"} | KINDS[kind],
    )  # fmt: skip
    volumes = torch.rand(4, 1, *SPACE)
    vqvae(volumes)
    prior = Prior(
        grids=[[n // factor for n in SPACE] for factor in vqvae.downsamplings],
        num_embeddings=vqvae.num_embeddings, channels=8, num_layers=2, kernel=3, radius=1,
        dropout=0.5, covariates=to_json([AGE, SITE]),
    )  # fmt: skip
    for parameter in prior.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    with torch.no_grad():
        prior.fit_gains(vqvae.eval().encode(volumes))
    return vqvae, prior.eval()


@pytest.mark.parametrize("box", [BOX, ((0, 8), (0, 12), (0, 8)), ((3, 4), (4, 8), (7, 8))])
@pytest.mark.parametrize("downsampling", [2, 4])
def test_a_position_is_shared_out_evenly_among_its_voxels_in_the_box(
    box: Box, downsampling: int
) -> None:
    grid = [n // downsampling for n in SPACE]
    values = np.random.default_rng(0).normal(size=grid)
    found = spread(values, downsampling, box)
    assert found.shape == SPACE
    expected = np.zeros(SPACE)
    for position in itertools.product(*map(range, grid)):
        block = itertools.product(
            *(range(p * downsampling, (p + 1) * downsampling) for p in position)
        )
        inside = [v for v in block if all(a <= i < b for i, (a, b) in zip(v, box, strict=True))]
        for voxel in inside:
            expected[voxel] = values[position] / len(inside)
    np.testing.assert_allclose(found, expected)


def test_a_picture_is_spread_as_a_volume_is() -> None:
    found = spread(np.array([[4.0, 8.0], [1.0, 2.0]]), 2, ((0, 2), (0, 3)))
    assert found.tolist() == [[1, 1, 4, 0], [1, 1, 4, 0], [0, 0, 0, 0], [0, 0, 0, 0]]


@pytest.mark.parametrize("downsamplings", [[4], [2], [2, 4]], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_bits_are_the_priors_own_of_the_positions_in_view(
    kind: str, downsamplings: list[int]
) -> None:
    vqvae, prior = models(kind, downsamplings)
    volume = torch.rand(1, *SPACE)
    rows = encode([AGE, SITE], [{"age": 35, "site": "b"}])
    found = unusualness(vqvae, prior, volume.numpy(), BOX, rows)

    with torch.no_grad():
        nats = prior(vqvae.encode(volume[None]), rows)
    expected, positions = {}, 0
    for index, (name, factor) in enumerate(zip(vqvae.map_names, vqvae.downsamplings, strict=True)):
        ends = [(start // factor, (stop - 1) // factor + 1) for start, stop in BOX]
        in_view = nats[index][0][tuple(slice(*end) for end in ends)]
        expected[name] = float(in_view.double().sum()) / math.log(2)
        if vqvae.num_embeddings[index]:
            positions += in_view.numel()
    gains = {name for name in expected if kind == "real gains" and name.endswith("gain")}
    assert len(gains) == (len(downsamplings) if kind == "real gains" else 0)
    assert dict(found.density_bits) == pytest.approx({name: expected.pop(name) for name in gains})
    assert dict(found.bits) == pytest.approx(expected)
    assert found.positions == positions
    assert found.total_bits == pytest.approx(sum(expected.values()))
    assert found.bits_per_code == pytest.approx(found.total_bits / positions)
    assert found.bits_per_voxel == pytest.approx(found.total_bits / (8 * 6 * 7))


@pytest.mark.parametrize("downsamplings", [[4], [2, 4]], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_the_map_sums_to_the_total_and_padding_has_none(
    kind: str, downsamplings: list[int]
) -> None:
    vqvae, prior = models(kind, downsamplings)
    volume = np.random.default_rng(0).random((1, *SPACE), dtype=np.float32)
    found = unusualness(vqvae, prior, volume, BOX, prior.unknown(1))
    assert found.voxels.shape == SPACE
    assert found.voxels.sum() == pytest.approx(found.total_bits)
    assert (found.voxels[:, 5:11, 1:] > 0).all()
    padding = found.voxels.copy()
    padding[:, 5:11, 1:] = 0
    assert not padding.any()


def test_covariates_change_the_bits() -> None:
    vqvae, prior = models("ema", [4])
    volume = np.random.default_rng(0).random((1, *SPACE), dtype=np.float32)
    subjects: list[dict[str, Any]] = [{}, {"site": "a"}, {"site": "b"}]
    totals = [
        unusualness(vqvae, prior, volume, BOX, encode([AGE, SITE], [subject])).total_bits
        for subject in subjects
    ]
    assert len({round(total, 3) for total in totals}) == 3
