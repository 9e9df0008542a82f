"""How far two sets of feature vectors are from each other, as distributions."""

import numpy as np
from jaxtyping import Float

A = Float[np.ndarray, "a feature"]
B = Float[np.ndarray, "b feature"]


def frechet_distance(a: A, b: B) -> float:
    """‖μa − μb‖² + tr(Σa + Σb − 2 (Σa Σb)^½), Heusel et al. 2017; lower is better, least 0.

    Unbiased covariances. In the squared unit of the features, which whitening makes 1. Finite sets
    of one distribution are above 0, the more so the fewer items per dimension: compare sets of one
    size. NaN without features or with fewer than 2 items in a set.
    """
    if min(len(a), len(b)) < 2 or a.shape[1] == 0:
        return float("nan")
    root_a, root_b = _root(a), _root(b)
    # the eigenvalues of Σa Σb are the squared singular values of Ra Rbᵀ: no root is ever taken
    cross = np.linalg.svd(root_a @ root_b.T, compute_uv=False).sum()
    means = np.square(a.mean(axis=0) - b.mean(axis=0)).sum()
    spreads = np.square(root_a).sum() + np.square(root_b).sum()
    return max(0.0, float(means + spreads - 2 * cross))


def mmd_squared_biased(a: A, b: B) -> float:
    """Squared maximum mean discrepancy with the pairs of an item and itself; lower is better.

    The V-statistic of Gretton et al. 2012, least 0, with the kernel (x·y / d + 1)³ of KID
    (Bińkowski et al. 2018, arXiv:1801.01401).
    Finite sets of one distribution are above 0. NaN without features or items.
    """
    if min(len(a), len(b), a.shape[1]) == 0:
        return float("nan")
    return max(0.0, float(_kernel(a).mean() + _kernel(b).mean() - 2 * _kernel(a, b).mean()))


def _root(items: A) -> Float[np.ndarray, "rank feature"]:
    """R with Rᵀ R = Σ."""
    centred = items - items.mean(axis=0)
    return np.asarray(np.linalg.qr(centred / np.sqrt(len(items) - 1), mode="r"))


def _kernel(a: A, b: B | None = None) -> Float[np.ndarray, "a other"]:
    other = a if b is None else b
    return (a @ other.T / a.shape[1] + 1) ** 3


def jensen_shannon(p: Float[np.ndarray, " kind"], q: Float[np.ndarray, " kind"]) -> float:
    """½ KL(P‖M) + ½ KL(Q‖M) in bits with M = ½ (P + Q) (Lin 1991), 0 to 1; lower is better.

    p, q: shares of the same kinds, each of sum 1
    """
    middle = (p + q) / 2
    terms = [x[x > 0] * np.log2(x[x > 0] / middle[x > 0]) for x in (p, q)]
    return max(0.0, float(terms[0].sum() + terms[1].sum()) / 2)
