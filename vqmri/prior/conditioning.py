"""From the codes of coarser levels to a conditioning map on a finer grid."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from vqmri.convolution import convolution
from vqmri.shapes import Codes


class LevelAbove(nn.Module):
    """Embed one coarser level's codes, convolve, and repeat each position onto the finer grid.

    Codes are names, not numbers: what is stretched to the finer grid is their embedding.
    Nothing here is causal, because all coarser codes are known before the finer ones are drawn.
    """

    def __init__(
        self, num_embeddings: int, channels: int, factors: Sequence[int], num_layers: int
    ) -> None:
        super().__init__()
        self.factors = tuple(factors)
        self.embedding = nn.Embedding(num_embeddings, channels)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.SiLU(), convolution(len(factors), channels, channels, 3, padding=1))
            for _ in range(num_layers)
        )

    def forward(self, codes: Codes) -> Float[Tensor, "batch feature *fine"]:
        """(batch, *coarse grid) to (batch, channels, *fine grid)."""
        x: Tensor = self.embedding(codes).movedim(-1, 1)
        for layer in self.layers:
            x = x + layer(x)
        for axis, factor in enumerate(self.factors, start=2):
            x = x.repeat_interleave(factor, dim=axis)
        return x
