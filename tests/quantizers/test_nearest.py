import numpy as np
import pytest
import torch

from vqmri.quantizers import nearest
from vqmri.quantizers.nearest import TOKENS_PER_CHUNK


def numpy_nearest(latents: np.ndarray, codebook: np.ndarray) -> np.ndarray:
    return np.square(latents[:, None] - codebook[None]).sum(axis=2).argmin(axis=1)


@pytest.mark.parametrize(("tokens", "number", "dim"), [(7, 3, 2), (500, 64, 8), (1000, 256, 32)])
def test_equals_numpy_in_float64(tokens: int, number: int, dim: int) -> None:
    latents, codebook = torch.randn(tokens, dim), torch.randn(number, dim)
    expected = numpy_nearest(latents.double().numpy(), codebook.double().numpy())
    assert (nearest(latents, codebook).numpy() == expected).all()


def test_chunks_do_not_change_the_result() -> None:
    latents, codebook = torch.randn(TOKENS_PER_CHUNK + 5, 4), torch.randn(9, 4)
    whole = nearest(latents, codebook)
    assert torch.equal(whole[-5:], nearest(latents[-5:], codebook))


def test_autocast_does_not_make_neighbours_wrong() -> None:
    # far from the origin bfloat16 cannot tell the two apart
    codebook = torch.tensor([[1000.0], [1001.0]])
    latents = torch.tensor([[1000.4], [1000.6]])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert nearest(latents, codebook).tolist() == [0, 1]
