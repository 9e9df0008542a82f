from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tests.prior.cases import pixelcnn
from vqmri.prior.pixelcnn import PixelCNN, gate


def test_the_gate_is_tanh_of_the_one_half_times_the_sigmoid_of_the_other() -> None:
    x = torch.randn(2, 6, 3, 4)
    torch.testing.assert_close(gate(x), torch.tanh(x[:, :3]) / (1 + torch.exp(-x[:, 3:])))


def test_in_training_whole_codes_are_hidden_and_the_rest_made_larger() -> None:
    module = PixelCNN(
        num_embeddings=5, grid=(20, 30), channels=6, num_layers=1, kernel=2, radius=1, dropout=0.3
    )
    streams: list[Tensor] = []

    def keep(_: nn.Module, inputs: Sequence[Sequence[Tensor]]) -> None:
        streams.append(inputs[0][1])  # the voxel stream before the first layer, shifted by one

    module.layers[0].register_forward_pre_hook(keep)
    codes = torch.randint(5, (4, 20, 30))
    module(codes)
    module.eval()
    module(codes)
    trained, plain = (stream[:, :, :, 1:] for stream in streams)
    hidden = (trained == 0).all(dim=1)
    assert 0.25 < float(hidden.double().mean()) < 0.35
    shown = ~hidden.unsqueeze(1).expand_as(trained)
    torch.testing.assert_close(trained[shown], plain[shown] / 0.7)


def test_the_place_matters_and_not_only_the_neighbours() -> None:
    module = pixelcnn((6, 6))
    module.position.data.zero_()
    codes = torch.zeros(1, 6, 6, dtype=torch.long)
    module.position.data[..., 3, 2] = 1.0
    at_3_2 = module(codes)
    module.position.data.zero_()
    plain = module(codes)
    assert not torch.equal(at_3_2[..., 3, 2], plain[..., 3, 2])
    assert torch.equal(at_3_2[..., :3, :], plain[..., :3, :])
