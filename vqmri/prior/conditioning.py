"""From the maps above to a conditioning map on a finer grid."""

from collections.abc import Sequence

from jaxtyping import Float
from torch import Tensor, nn

from vqmri.convolution import convolution
from vqmri.shapes import Values


class MapAbove(nn.Module):
    """Embed one map above, convolve, and repeat each position onto the finer grid.

    Codes are names, not numbers: what is stretched to the finer grid is their embedding. A gain
    that was left unquantised is a number, and enters as one. Nothing here is causal, because the
    maps above are known as a whole before a finer one is drawn.
    """

    def __init__(
        self, num_embeddings: int, channels: int, factors: Sequence[int], num_layers: int
    ) -> None:
        super().__init__()
        self.factors = tuple(factors)
        dims = len(self.factors)
        self.embedding = (
            nn.Embedding(num_embeddings, channels)
            if num_embeddings
            else convolution(dims, 1, channels)
        )
        self.layers = nn.ModuleList(
            nn.Sequential(nn.SiLU(), convolution(dims, channels, channels, 3, padding=1))
            for _ in range(num_layers)
        )

    def forward(self, values: Values) -> Float[Tensor, "batch feature *fine"]:
        """(batch, *coarse grid) to (batch, channels, *fine grid)."""
        if isinstance(self.embedding, nn.Embedding):
            x: Tensor = self.embedding(values).movedim(-1, 1)
        else:
            x = self.embedding(values.unsqueeze(1))
        for layer in self.layers:
            x = x + layer(x)
        for axis, factor in enumerate(self.factors, start=2):
            x = x.repeat_interleave(factor, dim=axis)
        return x
