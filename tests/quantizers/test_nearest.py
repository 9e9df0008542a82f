import numpy as np
import pytest
import torch

from vqmri.quantizers import nearest, squared_distances
from vqmri.quantizers.nearest import DISTANCES_PER_CHUNK_ON_CPU


def numpy_nearest(latents: np.ndarray, codebook: np.ndarray) -> np.ndarray:
    return np.square(latents[:, None] - codebook[None]).sum(axis=2).argmin(axis=1)


@pytest.mark.parametrize(("tokens", "number", "dim"), [(7, 3, 2), (500, 64, 8), (1000, 256, 32)])
def test_equals_numpy_in_float64(tokens: int, number: int, dim: int) -> None:
    latents, codebook = torch.randn(tokens, dim), torch.randn(number, dim)
    expected = numpy_nearest(latents.double().numpy(), codebook.double().numpy())
    assert (nearest(latents, codebook).numpy() == expected).all()


def test_chunks_do_not_change_the_result() -> None:
    latents, codebook = torch.randn(DISTANCES_PER_CHUNK_ON_CPU // 64 + 5, 4), torch.randn(64, 4)
    whole = nearest(latents, codebook)
    assert torch.equal(whole[-5:], nearest(latents[-5:], codebook))


def test_autocast_does_not_make_neighbours_wrong() -> None:
    # far from the origin bfloat16 cannot tell the two apart
    codebook = torch.tensor([[1000.0], [1001.0]])
    latents = torch.tensor([[1000.4], [1000.6]])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert nearest(latents, codebook).tolist() == [0, 1]


def test_distances_equal_numpy_in_float64() -> None:
    latents, codebook = torch.randn(50, 8), torch.randn(16, 8)
    expected = np.square(latents.double().numpy()[:, None] - codebook.double().numpy()[None]).sum(
        axis=2
    )
    found = squared_distances(latents, codebook).numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_small_distances_of_long_vectors_are_not_lost() -> None:
    latents, codebook = torch.tensor([[1000.25, 1000.0]]), torch.tensor([[1000.0, 1000.0]])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert squared_distances(latents, codebook).item() == pytest.approx(0.0625, rel=1e-5)
