"""Procedural heads: something to run the whole pipeline on without anybody's scan.

Ellipsoids in millimetres with soft edges: scalp, skull, cerebrospinal fluid, a folded cortex, white
matter, deep grey nuclei and two lateral ventricles that grow with age. Each subject has its own
size, folds, tilt, asymmetry and contrast; then come a smooth bias field and Rician noise.
"""

import hashlib
import re

import numpy as np
from jaxtyping import Float

from vqmri.scans.volume import Candidate, Volume

AGES = (20.0, 90.0)
"""Range of the covariate `age` in years; `sex` is F or M."""

_INTENSITY = {"scalp": 0.85, "skull": 0.06, "csf": 0.14, "grey": 0.48, "white": 0.82}
_RADII = np.array(
    [72.0, 90.0, 78.0]
)  # outer head: half axes in mm, left-right, back-front, up-down
_EDGE = 1.5  # width of a soft edge in mm

Coordinates = Float[np.ndarray, "3 x y z"]
Mask = Float[np.ndarray, "x y z"]


def find(*, count: int, seed: int) -> list[Candidate]:
    """`count` phantoms, each a subject of its own, with covariates age and sex."""
    found = []
    for number in range(count):
        random = _random(seed, number)
        age = round(float(random.uniform(*AGES)), 1)
        sex = "FM"[int(random.integers(2))]
        name = f"phantom{number:05d}"
        found.append(Candidate(name, name, {"age": age, "sex": sex}))
    return found


def read(candidate: Candidate, *, seed: int, spacing: float) -> tuple[Volume, str]:
    """The phantom of a candidate, on a grid in orientation LAS, and the sha256 of its voxels."""
    number = int(candidate.source.removeprefix("phantom"))
    random = _random(seed, number)
    random.uniform(), random.integers(2)  # age and sex, drawn by find
    grid, affine = _grid(spacing)
    age, sex = float(candidate.covariates["age"]), str(candidate.covariates["sex"])
    data = _scanner(_head(grid, age, sex, random), grid, random).astype(np.float32)
    return Volume(data[None], affine), hashlib.sha256(data.tobytes()).hexdigest()


def ventricle_radius(age: float) -> float:
    """Relative size of the ventricles at an age in years, before the subject's own variation."""
    return 0.75 + 0.65 * (age - AGES[0]) / (AGES[1] - AGES[0])


def is_phantom(source: str) -> bool:
    """Whether a scan of this name is one of these heads."""
    return re.fullmatch(r"phantom\d{5}", source) is not None


def ventricle_volume(data: Float[np.ndarray, "x y z"], affine: Float[np.ndarray, "4 4"]) -> float:
    """Volume of fluid in cm³ in the middle of a phantom's head, from its intensities alone.

    Σ (white − v) / (white − fluid) over the ellipsoid of half the head's axes, which holds the
    ventricles and, of the rest, only white matter and nuclei; white is the region's upper quartile.
    The nuclei add a constant. Linear in v, so neither noise nor a blur that stays inside moves it.
    """
    index = np.stack(np.meshgrid(*[np.arange(n) for n in data.shape], indexing="ij"))
    world = np.einsum("ij,jxyz->ixyz", affine[:3, :3], index) + affine[:3, 3, None, None, None]
    inside = np.square(world / (_RADII / 2)[:, None, None, None]).sum(axis=0) < 1
    values = data[inside].astype(np.float64)
    white = np.percentile(values, 75)
    fluid = white * _INTENSITY["csf"] / _INTENSITY["white"]
    voxel = abs(float(np.linalg.det(affine[:3, :3]))) / 1000
    return float(((white - values) / (white - fluid)).sum() * voxel)


def _random(seed: int, number: int) -> np.random.Generator:
    return np.random.default_rng([seed, number])


def _grid(spacing: float) -> tuple[Coordinates, Float[np.ndarray, "4 4"]]:
    """World coordinates in mm of every voxel of a grid that holds a head, and its affine."""
    shape = [int(np.ceil(2 * extent / spacing)) for extent in (80.0, 100.0, 84.0)]
    affine = np.diag([-spacing, spacing, spacing, 1.0])
    affine[:3, 3] = -affine[:3, :3] @ (np.array(shape) - 1) / 2
    index = np.stack(np.meshgrid(*[np.arange(n) for n in shape], indexing="ij"))
    world = np.einsum("ij,jxyz->ixyz", affine[:3, :3], index) + affine[:3, 3, None, None, None]
    return world, affine


def _head(grid: Coordinates, age: float, sex: str, random: np.random.Generator) -> Mask:
    """Noise-free intensities in [0, 1]."""
    size = random.normal(1.02 if sex == "M" else 0.96, 0.025) * random.normal(
        1, 0.025, (3, 1, 1, 1)
    )
    p = np.einsum("ij,jxyz->ixyz", _tilt(random), grid) / size
    contrast = {name: value * random.normal(1, 0.04) for name, value in _INTENSITY.items()}
    atrophy = 3.0 * (age - AGES[0]) / (AGES[1] - AGES[0])

    depth = _depth(p, _RADII)
    folded = depth - _folds(p, random)
    out = np.zeros(grid.shape[1:])
    out = _paint(out, depth, contrast["scalp"])
    out = _paint(out, depth - random.normal(6.0, 0.7), contrast["skull"])
    out = _paint(out, depth - random.normal(11.5, 0.7), contrast["csf"])
    out = _paint(out, folded - 15.0 - atrophy, contrast["grey"])
    out = _paint(out, folded - 26.0 - atrophy, contrast["white"])
    for side in (-1, 1):
        nucleus = _depth(p - _at(side * 14, -4, -6), np.array([8.0, 14.0, 9.0]))
        out = _paint(out, nucleus, contrast["grey"])
    scale = ventricle_radius(age) * random.normal(1, 0.06)
    for side in (-1, 1):
        shift = random.normal(0, 1.0, 3)
        out = _paint(out, _ventricle(p, side, scale, shift), contrast["csf"])
    return out


def _ventricle(p: Coordinates, side: int, scale: float, shift: np.ndarray) -> Mask:
    """Depth inside one lateral ventricle: a long body that bends outwards at its back."""
    x, y, z = p - _at(side * 9, 0, 10) - shift[:, None, None, None]
    x = x - side * 0.004 * np.minimum(y, 0) ** 2
    z = z + 0.006 * y**2
    return _depth(np.stack([x, y, z]), scale * np.array([7.0, 32.0, 11.0]))


def _folds(p: Coordinates, random: np.random.Generator) -> Mask:
    """Displacement of the cortex in mm: a few plane waves with phases of the subject's own."""
    waves = np.zeros(p.shape[1:])
    for _ in range(6):
        direction = random.normal(size=3)
        direction *= 2 * np.pi / random.uniform(22, 45) / np.linalg.norm(direction)
        waves += np.sin(np.einsum("i,ixyz->xyz", direction, p) + random.uniform(0, 2 * np.pi))
    return 1.6 * waves


def _tilt(random: np.random.Generator) -> Float[np.ndarray, "3 3"]:
    """A rotation by a few degrees about each axis."""
    a, b, c = np.radians(random.normal(0, 3.0, 3))
    turns = (
        np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]]),
        np.array([[np.cos(b), 0, np.sin(b)], [0, 1, 0], [-np.sin(b), 0, np.cos(b)]]),
        np.array([[np.cos(c), -np.sin(c), 0], [np.sin(c), np.cos(c), 0], [0, 0, 1]]),
    )
    return turns[0] @ turns[1] @ turns[2]


def _scanner(head: Mask, grid: Coordinates, random: np.random.Generator) -> Mask:
    """Bias field, gain and Rician noise."""
    x, y, z = grid / _RADII[:, None, None, None]
    a = random.normal(0, 0.08, 6)
    bias = np.exp(a[0] * x + a[1] * y + a[2] * z + a[3] * x * y + a[4] * y * z + a[5] * z * z)
    noise = random.normal(0, 0.02, (2, *head.shape))
    gain = 1000 * random.lognormal(0, 0.5)
    return gain * np.hypot(head * bias + noise[0], noise[1])


def _at(x: float, y: float, z: float) -> Float[np.ndarray, "3 1 1 1"]:
    return np.array([x, y, z], dtype=float).reshape(3, 1, 1, 1)


def _depth(p: Coordinates, radii: np.ndarray) -> Mask:
    """Approximate distance in mm inside an ellipsoid; negative outside."""
    r = np.sqrt(np.square(p / radii[:, None, None, None]).sum(axis=0))
    return (1 - r) * float(radii.mean())


def _paint(image: Mask, depth: Mask, value: float) -> Mask:
    """Cover what lies inside with `value`, with a soft edge as partial volume gives."""
    share = 1 / (1 + np.exp(-np.clip(depth / _EDGE, -30, 30) * 2))
    return image + share * (value - image)
