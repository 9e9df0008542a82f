"""Array types with named axes.

``*space`` are the voxels of a volume and ``*grid`` the positions of a code grid, in both cases the
axes x, y, z (row, column of a picture) in that order. A level's grid is its volume's space divided
by the level's downsampling. A *map* is one array of values on a grid: the codes of a level, or the
gains of its codes, which are codes too or, unquantised, real numbers. Maps stand in the order
finest level first, a level's gains before its codes; a map is known before those that stand before
it.
"""

from jaxtyping import Float, Int, Num
from torch import Tensor

Volumes = Float[Tensor, "batch channel *space"]
Latents = Float[Tensor, "batch dim *grid"]
Features = Float[Tensor, "batch feature *grid"]
Codes = Int[Tensor, "batch *grid"]
Values = Num[Tensor, "batch *grid"]
Codebook = Float[Tensor, "num_embeddings dim"]
Logits = Float[Tensor, "batch num_embeddings *grid"]
Scalar = Float[Tensor, ""]

Box = tuple[tuple[int, int], ...]
"""Half-open index ranges, one (start, stop) per spatial axis."""
