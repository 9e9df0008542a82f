"""Array types with named axes.

``*space`` are the voxels of a volume and ``*grid`` the positions of a code grid, in both cases the
axes x, y, z (or x, y in 2D) in that order. A level's grid is its volume's space divided by the
level's downsampling.
"""

from jaxtyping import Float, Int
from torch import Tensor

Volumes = Float[Tensor, "batch channel *space"]
Latents = Float[Tensor, "batch dim *grid"]
Features = Float[Tensor, "batch feature *grid"]
Codes = Int[Tensor, "batch *grid"]
Codebook = Float[Tensor, "num_embeddings dim"]
Logits = Float[Tensor, "batch num_embeddings *grid"]
Scalar = Float[Tensor, ""]

Box = tuple[tuple[int, int], ...]
"""Half-open index ranges, one (start, stop) per spatial axis."""
