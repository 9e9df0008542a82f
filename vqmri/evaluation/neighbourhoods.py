"""Do samples lie where real items do, and do they lie everywhere there?"""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from scipy.spatial.distance import cdist


class Neighbourhoods(NamedTuple):
    """Four shares by balls about each item that reach to its k-th neighbour; higher is better.

    precision: of the samples that lie in the ball of a real item, 0 to 1
    recall: of the real items that lie in the ball of a sample, 0 to 1
    density: mean number of real balls about a sample, divided by k: 1 in the mean where samples are
        as the real items are, and above it where they keep to the most usual
    coverage: of the real items in whose ball lies a sample, 0 to 1
    """

    precision: float
    recall: float
    density: float
    coverage: float


def neighbourhoods(
    real: Float[np.ndarray, "real feature"], fake: Float[np.ndarray, "fake feature"], k: int = 5
) -> Neighbourhoods:
    """Of samples and real items.

    Precision and recall: Kynkäänniemi et al. 2019, arXiv:1904.06991; density and coverage: Naeem et
    al. 2020, arXiv:2002.09797, which no outlier among the real items can raise. The radius is that
    to the k-th of the *other* items of the same set; a ball holds its surface, so that items that
    repeat are in each other's. All depend on both numbers of items: compare sets of one size, with
    the figures of other real items beside them. NaN with k items or fewer in either set.
    """
    if min(len(real), len(fake)) <= k:
        return Neighbourhoods(*[float("nan")] * 4)
    distances = cdist(real, fake)
    in_real = distances <= _radii(real, k)[:, None]
    in_fake = distances <= _radii(fake, k)
    return Neighbourhoods(
        precision=float(in_real.any(axis=0).mean()),
        recall=float(in_fake.any(axis=1).mean()),
        density=float(in_real.sum(axis=0).mean() / k),
        coverage=float(in_real.any(axis=1).mean()),
    )


def _radii(items: Float[np.ndarray, "item feature"], k: int) -> Float[np.ndarray, " item"]:
    """Distance of each item to its k-th nearest other one."""
    return np.partition(cdist(items, items), k, axis=1)[:, k]  # number 0 is the item itself
