"""How far two sets of feature vectors are from each other, as distributions."""

import numpy as np
from jaxtyping import Float

A = Float[np.ndarray, "a feature"]
B = Float[np.ndarray, "b feature"]

_SHARES = np.linspace(0.5, 1, 6)  # of each set, for the line over 1/n
_DRAWS = 20  # of each share


def frechet_distance(a: A, b: B) -> float:
    """‖μa − μb‖² + tr(Σa + Σb − 2 (Σa Σb)^½), Heusel et al. 2017; lower is better, least 0.

    Unbiased covariances. In the squared unit of the features, which whitening makes 1. Finite sets
    of one distribution are above 0, the more so the fewer items per dimension: compare sets of one
    size, or see `frechet_unbiased`. NaN without features or with fewer than 2 items in a set.
    """
    if min(len(a), len(b)) < 2 or a.shape[1] == 0:
        return float("nan")
    root_a, root_b = _root(a), _root(b)
    # the eigenvalues of Σa Σb are the squared singular values of Ra Rbᵀ: no root is ever taken
    cross = np.linalg.svd(root_a @ root_b.T, compute_uv=False).sum()
    means = np.square(a.mean(axis=0) - b.mean(axis=0)).sum()
    spreads = np.square(root_a).sum() + np.square(root_b).sum()
    return max(0.0, float(means + spreads - 2 * cross))


def frechet_unbiased(a: A, b: B, seed: int) -> float:
    """The Fréchet distance of sets without end, by a line over 1/n; lower is better.

    Chong & Forsyth 2020, arXiv:1911.07023: the distance of n items is that of endlessly many plus
    c/n to first order. Random shares of both sets, from a half to all, give the line; its height at
    1/n = 0 is returned. It scatters more than the plain distance and may be below 0; what is left
    of the bias is of the order of (features/n)². NaN where the plain distance is, and with fewer
    than 4 items in a set.
    """
    if min(len(a), len(b)) < 4:
        return float("nan")
    random = np.random.default_rng(seed)
    found = [
        np.mean([frechet_distance(_part(a, share, random), _part(b, share, random))
                 for _ in range(_DRAWS if share < 1 else 1)])
        for share in _SHARES
    ]  # fmt: skip
    return float(np.polyfit(1 / _SHARES, found, 1)[1])


def mmd_squared(a: A, b: B) -> float:
    """Squared maximum mean discrepancy, unbiased; lower is better, 0 in the mean of equal sources.

    The U-statistic of KID (Bińkowski et al. 2018, arXiv:1801.01401, eq. 4) with the kernel
    (x·y / d + 1)³; it may be below 0. NaN without features or with fewer than 2 items in a set.
    """
    n, m = len(a), len(b)
    if min(n, m) < 2 or a.shape[1] == 0:
        return float("nan")
    within = [(k.sum() - np.trace(k)) / (len(k) * (len(k) - 1)) for k in (_kernel(a), _kernel(b))]
    return float(within[0] + within[1] - 2 * _kernel(a, b).mean())


def mmd_squared_biased(a: A, b: B) -> float:
    """The same as a V-statistic, with the pairs of an item and itself; lower is better, least 0.

    Gretton et al. 2012, eq. 5.
    Finite sets of one distribution are above 0. NaN without features or items.
    """
    if min(len(a), len(b), a.shape[1]) == 0:
        return float("nan")
    return max(0.0, float(_kernel(a).mean() + _kernel(b).mean() - 2 * _kernel(a, b).mean()))


def _root(items: A) -> Float[np.ndarray, "rank feature"]:
    """R with Rᵀ R = Σ."""
    centred = items - items.mean(axis=0)
    return np.asarray(np.linalg.qr(centred / np.sqrt(len(items) - 1), mode="r"))


def _part(items: A, share: float, random: np.random.Generator) -> Float[np.ndarray, "part feature"]:
    return items[random.permutation(len(items))[: round(share * len(items))]]


def _kernel(a: A, b: B | None = None) -> Float[np.ndarray, "a other"]:
    other = a if b is None else b
    return (a @ other.T / a.shape[1] + 1) ** 3
