from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from monai.networks.nets import resnet
from safetensors.torch import save_file
from scipy.ndimage import gaussian_filter
from scipy.signal import correlate
from torch import Tensor

from vqmri.errors import InputError
from vqmri.evaluation.features import (
    MOST_DIMENSIONS,
    EncoderSpace,
    Projection,
    RandomNet,
    WeightsFile,
)
from vqmri.outputs import sha256_of
from vqmri.vqvae import VQVAE

SHAPES = [(28, 27), (12, 17, 10)]
each_shape = pytest.mark.parametrize("space", SHAPES)


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).random(shape, dtype=np.float32)


@each_shape
def test_the_first_features_of_a_random_net_by_scipy(space: tuple[int, ...]) -> None:
    """The weights are those of NumPy's Philox, and the features mean and deviation over space."""
    dims = len(space)
    volumes = noise(2, 2, *space)
    random = np.random.Generator(np.random.Philox(3))
    weights = random.standard_normal((16, 2, *[3] * dims))
    for i in range(0, 16, 2):
        for channel in (0, 1):
            weights[i, channel] -= weights[i, channel].mean()
    weights *= np.sqrt(2 / (2 * 3**dims))
    found = RandomNet(dims, 2, seed=3)(volumes)
    assert found.dtype == np.float64
    assert found.shape == (2, 2 * (16 + 32 + 48 + 64) + 64 * 2**dims)
    for item, volume in enumerate(volumes):
        for i in range(16):
            state = sum(correlate(volume[c], weights[i, c], mode="same") for c in (0, 1))
            state = np.maximum(state, 0)
            assert found[item, i] == pytest.approx(state.mean(), rel=1e-4)
            assert found[item, 16 + i] == pytest.approx(state.std(), rel=1e-4)


def test_the_weights_of_version_1_never_change() -> None:
    """Figures of reports made with "random-cnn-v1" are compared with one another."""
    ramp = np.linspace(0, 1, 64, dtype=np.float32).reshape(1, 1, 8, 8)
    features = RandomNet(2, 1)(ramp)[0]
    assert features[[1, 40, 99, 571]] == pytest.approx(
        [0.4847974, 0.1650947, 0.1864485, 0.04632501], rel=1e-4
    )


@each_shape
def test_features_are_of_each_volume_alone_and_of_its_grey_channels(
    space: tuple[int, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    volumes = noise(5, 3, *space)
    net = RandomNet(len(space), 2)
    found = net(volumes)
    assert (found == net(volumes)).all()
    relabelled = volumes.copy()
    relabelled[:, 2] = 7
    assert (net(relabelled) == found).all()
    relabelled[:, 1] = 0
    assert (net(relabelled) != found).any()
    monkeypatch.setattr("vqmri.evaluation.features._VOXELS_PER_BATCH", 1)
    assert net(volumes) == pytest.approx(found, rel=1e-4, abs=1e-5)


def test_a_seed_is_another_space_and_leaves_the_random_state_alone() -> None:
    before = torch.get_rng_state()
    nets = [RandomNet(2, 1, seed=seed) for seed in (0, 1)]
    assert (torch.get_rng_state() == before).all()
    assert [net.name for net in nets] == ["random-cnn-v1-seed-0", "random-cnn-v1-seed-1"]
    volumes = noise(2, 1, 9, 9)
    assert (nets[0](volumes) != nets[1](volumes)).any()


@each_shape
def test_a_random_net_sees_blur_and_layout(space: tuple[int, ...]) -> None:
    """Texture in the deviations, the place of things in the grid; flat volumes do no harm."""
    sharp = noise(1, 1, *space)
    blurred = gaussian_filter(sharp, (0, 0, *[1] * len(space)))
    corner = np.zeros_like(sharp)
    corner[:, :, : space[0] // 2] = sharp[:, :, : space[0] // 2]
    net = RandomNet(len(space), 1)
    deviations = slice(16, 32)
    assert net(blurred)[0, deviations].sum() < 0.7 * net(sharp)[0, deviations].sum()
    there, elsewhere = net(np.concatenate([corner, corner[:, :, ::-1]]))
    half = 64 * 2 ** (len(space) - 1)
    grids = there.reshape(1, -1)[:, -2 * half :], elsewhere.reshape(1, -1)[:, -2 * half :]
    assert np.linalg.norm(grids[0] - grids[1]) > 0.5 * np.linalg.norm(grids[0])
    assert (net(np.zeros_like(sharp)) == 0).all()
    assert np.isfinite(net(np.ones((1, 1, *[1] * len(space)), np.float32))).all()


def vqvae(**changes: Any) -> VQVAE:
    arguments: dict[str, Any] = {
        "spatial_dims": 3, "in_channels": 1, "channels": [8, 16], "num_res_blocks": [0, 1],
        "downsamplings": [4], "num_embeddings": [8], "embedding_dim": 4,
        "quantizer": {"kind": "codebook_loss", "commitment_cost": 0.25, "initialisation": "data"},
    }  # fmt: skip
    return VQVAE(**arguments | changes).eval()


def pooled(latents: Tensor) -> np.ndarray:
    """On two cells per axis, each an even half."""
    found = latents
    for axis in range(2, latents.ndim):
        half = latents.shape[axis] // 2
        parts = [found.narrow(axis, start, half) for start in (0, half)]
        found = torch.stack([p.mean(dim=axis) for p in parts], dim=axis)
    return found.flatten(start_dim=1).numpy()


@pytest.mark.parametrize("space", [(16, 8), (16, 8, 16)])
def test_the_encoders_space_holds_its_latents(space: tuple[int, ...]) -> None:
    model = vqvae(spatial_dims=len(space), num_classes=3)
    volumes = noise(3, 2, *space)
    volumes[:, 1] = np.random.default_rng(1).integers(3, size=(3, *space))
    grey, label = torch.from_numpy(volumes[:, :1]), torch.from_numpy(volumes[:, 1]).long()
    hot = torch.nn.functional.one_hot(label, 3).movedim(-1, 1).float()
    with torch.inference_mode():
        latents = model.to_latents[0](model.encoder(torch.cat([grey, hot], dim=1))[1])
    found = EncoderSpace(model)(volumes)
    assert found == pytest.approx(pooled(latents), abs=1e-6)
    assert found.shape == (3, 4 * 2 ** len(space))
    assert EncoderSpace.name == "encoder"


@torch.inference_mode()
def two_levels(model: VQVAE, volumes: np.ndarray) -> list[Tensor]:
    """The latents of a model with two levels, the top first."""
    features = model.encoder(torch.from_numpy(volumes))
    top = model.to_latents[1](features[1])
    coarse = model.quantizers[1](top)
    state = model.decoders[1](coarse.latents, None)
    return [top, model.to_latents[0](torch.cat([features[0], state], dim=1))]


def test_two_levels_stand_one_after_another() -> None:
    model = vqvae(downsamplings=[2, 4], num_embeddings=[8, 6])
    volumes = noise(2, 1, 8, 16, 8)
    expected = [pooled(latents) for latents in two_levels(model, volumes)]
    assert EncoderSpace(model)(volumes) == pytest.approx(np.concatenate(expected, axis=1), abs=1e-5)


def test_latents_of_tiles_are_put_together() -> None:
    """Tiles of 16 voxels start at 0, 12 and 24, where the core of each begins too."""
    model = vqvae(downsamplings=[2, 4], num_embeddings=[8, 6], patch=[16, 8, 8])
    volumes = noise(2, 1, 40, 8, 8)
    parts = [two_levels(model, volumes[:, :, start : start + 16]) for start in (0, 12, 24)]
    expected = []
    for level, factor in enumerate((4, 2)):
        cores = [part[level][:, :, : length // factor]
                 for part, length in zip(parts, (12, 12, 16), strict=True)]  # fmt: skip
        expected.append(pooled(torch.cat(cores, dim=2)))
    assert EncoderSpace(model)(volumes) == pytest.approx(np.concatenate(expected, axis=1), abs=1e-5)


def expanded(name: str, value: float = 0.01, **options: Any) -> dict[str, Tensor]:
    """A net's state whose every tensor is one number on disk."""
    net = getattr(resnet, name)(feed_forward=False, n_input_channels=1, **options)
    return {
        key: torch.tensor(0 if tensor.dtype == torch.int64 else value).expand(tensor.shape)
        for key, tensor in net.state_dict().items()
    }


KINDS: dict[str, dict[str, Any]] = {
    "resnet10": {"shortcut_type": "B", "bias_downsample": False},
    "resnet18": {"shortcut_type": "A"},
    "resnet34": {"shortcut_type": "A"},
    "resnet50": {"shortcut_type": "B", "bias_downsample": False},
}


@pytest.mark.parametrize("name", KINDS)
def test_the_depth_is_found_in_the_file(name: str, tmp_path: Path) -> None:
    path = tmp_path / "weights.safetensors"
    state = expanded(name, spatial_dims=3, **KINDS[name])
    save_file({f"module.{k}": v.contiguous() for k, v in state.items()}, path)
    before = torch.get_rng_state()
    space = WeightsFile(path)
    assert (torch.get_rng_state() == before).all()
    assert space.name == f"{name}-{sha256_of(path)[:12]}"


def test_features_of_a_file_are_the_nets(tmp_path: Path) -> None:
    net = resnet.resnet10(
        spatial_dims=2, n_input_channels=1, conv1_t_stride=2, num_classes=3, bias_downsample=True
    ).eval()
    path = tmp_path / "weights.safetensors"
    save_file(net.state_dict(), path)
    volumes = noise(3, 2, 20, 24)
    grey = volumes[:, :1].astype(np.float64)
    standard = (grey - grey.mean(axis=(2, 3), keepdims=True)) / grey.std(axis=(2, 3), keepdims=True)
    net.fc = None
    with torch.inference_mode():
        expected = net(torch.from_numpy(standard.astype(np.float32))).numpy()
    space = WeightsFile(path)
    assert space(volumes) == pytest.approx(expected, rel=1e-3, abs=1e-4)
    assert np.isfinite(space(np.ones((2, 1, 20, 24), np.float32))).all()
    with pytest.raises(InputError, match="2D and these volumes have 3 axes"):
        space(noise(1, 1, 8, 8, 8))


def test_a_file_that_does_not_fit_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    good = expanded("resnet10", spatial_dims=2, bias_downsample=False)
    less = {key: value for key, value in good.items() if key != "layer3.0.conv2.weight"}
    coloured = good | {"conv1.weight": torch.zeros(64, 3, 7, 7)}
    contents = [
        ({}, "no conv1"),
        ({"a": torch.zeros(1)}, "no conv1"),
        (good | {"layer1.1.conv1.weight": torch.zeros(1)}, r"\(2, 1, 1, 1\) basic blocks"),
        (less, "layer3.0.conv2.weight"),
        (coloured, "takes 3 channels"),
        (good | {"bn1.weight": torch.zeros(3)}, "size mismatch for bn1.weight"),
    ]
    path = Path("weights.safetensors")
    for content, reason in contents:
        save_file({key: value.contiguous() for key, value in content.items()}, path)
        with pytest.raises(InputError, match=reason):
            WeightsFile(path)
    path.write_bytes(b"no tensors")
    torch.save(good, "weights.pth")
    for unreadable in (path, Path("weights.pth"), Path("nowhere.safetensors")):
        with pytest.raises(InputError, match="cannot be read"):
            WeightsFile(unreadable)


def reference(items: int = 40, features: int = 30) -> np.ndarray:
    random = np.random.default_rng(0)
    mixed = random.standard_normal((items, features)) @ random.standard_normal((features, features))
    return mixed * random.uniform(0.001, 1000, features) + 5


def test_a_projection_is_pca_of_standardised_features_with_whitening() -> None:
    known = reference(28)  # of which a quarter, 7, are the axes
    found = Projection.fit(known)(known)
    assert found.mean(axis=0) == pytest.approx(np.zeros(7), abs=1e-9)
    assert np.cov(found, rowvar=False) == pytest.approx(np.eye(7), abs=1e-9)
    standard = (known - known.mean(axis=0)) / known.std(axis=0)
    left, _, right = np.linalg.svd(standard, full_matrices=False)
    signs = np.sign(right[np.arange(7), np.abs(right[:7]).argmax(axis=1)])
    assert found == pytest.approx(left[:, :7] * signs * np.sqrt(27), abs=1e-8)


def test_new_items_go_the_same_way_and_one_by_one() -> None:
    known, new = reference(), reference()[:4] + 1
    projection = Projection.fit(known)
    assert projection(new)[2] == pytest.approx(projection(new[2:3])[0])
    assert (Projection.fit(known).loadings == projection.loadings).all()


def test_units_do_not_matter_and_constant_features_are_left_out() -> None:
    known = reference()
    other = np.concatenate([known * 1000 - 3, np.full((40, 2), 0.3)], axis=1)
    assert Projection.fit(other)(other) == pytest.approx(Projection.fit(known)(known), abs=1e-7)
    moved = other.copy()
    moved[:, -1] = 99
    assert Projection.fit(other)(moved) == pytest.approx(Projection.fit(other)(other))


@pytest.mark.parametrize(
    ("items", "features", "expected"),
    [(80, 30, MOST_DIMENSIONS), (40, 30, 10), (9, 30, 2), (40, 3, 3), (3, 30, 0)],
)
def test_dimensions_are_as_many_as_the_reference_bears(
    items: int, features: int, expected: int
) -> None:
    known = reference(items, features)
    assert Projection.fit(known)(known).shape == (items, expected)


def test_a_reference_of_low_rank_has_no_dimension_of_rounding_errors() -> None:
    known = reference(40, 3)
    doubled = np.concatenate([known, known[:, ::-1], known + known[:, :1]], axis=1)
    projected = Projection.fit(doubled)(doubled)
    assert projected.shape == (40, 3)
    assert np.cov(projected, rowvar=False) == pytest.approx(np.eye(3), abs=1e-6)
    flat = np.full((40, 3), 0.1)
    assert Projection.fit(flat)(flat).shape == (40, 0)
