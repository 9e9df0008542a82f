import numpy as np
import pytest
import torch

from vqmri.vqvae import Reconstruction, objective
from vqmri.vqvae.objective import LABEL_WEIGHT


def reconstruction(outputs: torch.Tensor, quantizer: float = 0.3) -> Reconstruction:
    return Reconstruction(outputs, [], torch.tensor(quantizer))


@pytest.mark.parametrize("space", [(4, 3), (4, 3, 2)])
def test_the_loss_is_the_mean_squared_error_and_the_quantizers(space: tuple[int, ...]) -> None:
    volumes, outputs = torch.rand(2, 3, *space), torch.rand(2, 3, *space)
    terms = objective(reconstruction(outputs), volumes)
    assert list(terms) == ["loss", "mse", "quantizer"]
    expected = ((outputs - volumes).double().numpy() ** 2).mean()
    assert float(terms["mse"]) == pytest.approx(expected)
    assert float(terms["quantizer"]) == pytest.approx(0.3)
    assert float(terms["loss"]) == pytest.approx(expected + 0.3)


@pytest.mark.parametrize("space", [(4, 3), (4, 3, 2)])
def test_labels_cost_their_cross_entropy_and_no_squared_error(space: tuple[int, ...]) -> None:
    images, labels = torch.rand(2, 2, *space), torch.randint(3, (2, *space))
    outputs = torch.randn(2, 2 + 3, *space)
    volumes = torch.cat([images, labels.unsqueeze(1).float()], dim=1)
    terms = objective(reconstruction(outputs), volumes)

    logits = outputs[:, 2:].double().numpy()
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    taken = np.take_along_axis(probabilities, labels.numpy()[:, None], axis=1)
    mse = ((outputs[:, :2] - images).double().numpy() ** 2).mean()
    cross_entropy = -np.log(taken).mean()
    assert float(terms["mse"]) == pytest.approx(mse)
    assert float(terms["cross_entropy"]) == pytest.approx(cross_entropy)
    assert float(terms["loss"]) == pytest.approx(mse + 0.3 + LABEL_WEIGHT * cross_entropy)


def test_two_labels_are_enough_to_be_told_from_an_image() -> None:
    volumes = torch.zeros(1, 2, 2, 2)
    outputs = torch.zeros(1, 1 + 2, 2, 2)
    terms = objective(reconstruction(outputs), volumes)
    assert float(terms["cross_entropy"]) == pytest.approx(np.log(2))


def test_half_precision_is_computed_in_float32() -> None:
    volumes, outputs = torch.rand(1, 1, 8, 8), torch.rand(1, 1, 8, 8).bfloat16()
    terms = objective(reconstruction(outputs), volumes)
    assert terms["mse"].dtype == torch.float32
    assert torch.equal(terms["mse"], (outputs.float() - volumes).square().mean())
