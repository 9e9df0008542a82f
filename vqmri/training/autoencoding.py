"""The VQ-VAE with all that its training minimises."""

from torch import Tensor, nn
from torch.func import functional_call

from vqmri.shapes import Volumes
from vqmri.training.device import mixed_precision
from vqmri.vqvae import VQVAE, objective

OPPONENT_WIDTH, OPPONENT_LAYERS = 16, 2


class Autoencoding(nn.Module):
    """What is trained: a VQ-VAE, and its opponent if there is one.

    spectral_cost: weight of the squared difference of Fourier magnitudes (Dhariwal et al. 2020,
        arXiv:2005.00341, §3.3), which asks for texture wherever it lies
    adversarial_cost: weight of what an opponent that looks at patches says of the reconstructions
        (least squares, Mao et al. 2017; patches, Isola et al. 2017); the opponent learns in the
        same step
    """

    def __init__(
        self,
        vqvae: VQVAE,
        *,
        spatial_dims: int,
        spectral_cost: float = 0.0,
        adversarial_cost: float = 0.0,
    ) -> None:
        super().__init__()
        self.vqvae = vqvae
        self.spectral_cost, self.adversarial_cost = spectral_cost, adversarial_cost
        self.spectral: nn.Module | None = None
        self.verdict: nn.Module | None = None
        self.opponent: nn.Module | None = None
        # MONAI is imported here, because that takes two seconds, and most runs have neither.
        if spectral_cost:
            from monai.losses import JukeboxLoss

            self.spectral = JukeboxLoss(spatial_dims)
        if adversarial_cost:
            from monai.losses import PatchAdversarialLoss
            from monai.networks.nets import PatchDiscriminator

            self.verdict = PatchAdversarialLoss()
            self.opponent = PatchDiscriminator(
                spatial_dims,
                channels=OPPONENT_WIDTH,
                in_channels=vqvae.in_channels,
                num_layers_d=OPPONENT_LAYERS,
                norm="INSTANCE",
            )

    def forward(self, volumes: Volumes) -> tuple[dict[str, Tensor], list[Tensor]]:
        """The terms of the loss, scalars, `loss` being what is minimised; and the maps of codes."""
        device = volumes.device
        with mixed_precision(device):
            reconstruction = self.vqvae(volumes)
        terms = objective(reconstruction, volumes)
        images = volumes[:, : self.vqvae.in_channels]
        decoded = reconstruction.outputs[:, : self.vqvae.in_channels].float()
        if self.spectral is not None:
            terms["spectral"] = self.spectral(decoded, images)
            terms["loss"] = terms["loss"] + self.spectral_cost * terms["spectral"]
        if self.opponent is not None:
            # in float32: MONAI's convolutions have not the remedy of vqmri/convolution.py
            terms["adversarial"], terms["opponent"] = self._contest(decoded, images)
            terms["loss"] = (
                terms["loss"] + self.adversarial_cost * terms["adversarial"] + terms["opponent"]
            )
        return terms, reconstruction.codes

    def _contest(self, decoded: Tensor, images: Tensor) -> tuple[Tensor, Tensor]:
        """What the VQ-VAE is told, and the opponent's own loss.

        Each has a gradient for its own side only, so that one optimiser serves both.
        """
        assert self.opponent is not None
        assert self.verdict is not None
        fixed = {name: value.detach() for name, value in self.opponent.named_parameters()}
        judged = functional_call(self.opponent, fixed, (decoded,))[-1]
        told = self.verdict(judged, target_is_real=True, for_discriminator=False)
        of_decoded = self.opponent(decoded.detach())[-1]
        of_images = self.opponent(images)[-1]
        own = self.verdict(of_decoded, target_is_real=False, for_discriminator=True)
        own = own + self.verdict(of_images, target_is_real=True, for_discriminator=True)
        return told, own / 2
