from collections.abc import Sequence

import numpy as np
import pytest

from benchmarks.dct import TransformCoder, classes, code_lengths, fit_scales, num_classes
from benchmarks.volumes import Side, Split, closeness
from vqmri.shapes import Box

SPACE = (12, 16, 8)
BOXES: list[Box] = [
    ((0, 12), (0, 16), (0, 8)),
    ((1, 12), (2, 15), (0, 7)),
    ((3, 10), (1, 12), (2, 8)),
]


def smooth_volumes(seed: int, boxes: Sequence[Box]) -> Side:
    """Waves and noise inside the fields of view, zero outside."""
    rng = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*[np.arange(n) / n for n in SPACE], indexing="ij"))
    volumes = np.zeros((len(boxes), 1, *SPACE), dtype=np.float32)
    for volume, box in zip(volumes, boxes, strict=True):
        wave = np.sin(np.tensordot(rng.normal(size=3) * 5, grid, axes=1) + rng.uniform(0, 6))
        noisy = np.clip(0.5 + 0.3 * wave + 0.05 * rng.normal(size=SPACE), 0, 1)
        view = tuple(slice(start, stop) for start, stop in box)
        volume[0][view] = noisy[view]
    return Side(volumes, list(boxes))


@pytest.fixture(scope="module")
def coder() -> TransformCoder:
    return TransformCoder.of(
        Split(smooth_volumes(0, BOXES * 5), smooth_volumes(1, BOXES * 2), (1.0, 1.0, 1.0))
    )


@pytest.mark.parametrize("rate", [0.125, 11 / 64, 0.625, 3.0])
def test_the_rate_is_the_one_asked_for(coder: TransformCoder, rate: float) -> None:
    assert coder.rate(coder.step_of_rate(rate)) == pytest.approx(rate, rel=0.02)


def test_a_rate_that_no_step_has_is_refused(coder: TransformCoder) -> None:
    with pytest.raises(ValueError, match="no step gives 1000"):
        coder.step_of_rate(1000.0)


def test_psnr_rises_with_the_rate_until_all_is_there(coder: TransformCoder) -> None:
    found = [
        closeness(coder.reconstruct(coder.step_of_rate(rate)), coder.side)["psnr"]
        for rate in (0.05, 0.125, 0.5, 2.0, 16.0)
    ]
    assert found == sorted(found)
    assert found[0] < 30
    assert found[-1] > 80


def test_nothing_is_written_outside_the_field_of_view(coder: TransformCoder) -> None:
    volumes = coder.reconstruct(coder.step_of_rate(0.5))
    for volume, box in zip(volumes, coder.side.boxes, strict=True):
        outside = np.ones(SPACE, dtype=bool)
        outside[tuple(slice(start, stop) for start, stop in box)] = False
        assert not volume[0][outside].any()


def test_code_lengths_are_those_of_one_distribution() -> None:
    """The probabilities of all integers sum to 1, and match the density's mass by quadrature."""
    symbols = np.arange(-400.0, 401.0)
    for step, scale in ((0.1, 0.3), (2.0, 0.5), (0.01, 0.02)):
        lengths = code_lengths(symbols, np.full_like(symbols, scale), step)
        assert (2.0**-lengths).sum() == pytest.approx(1)
        x = (symbols[402] + (np.arange(2000) + 0.5) / 2000 - 0.5) * step
        mass = (np.exp(-np.abs(x) / scale) / (2 * scale)).mean() * step
        assert 2.0 ** -lengths[402] == pytest.approx(mass, rel=1e-4)


def test_laplace_is_the_better_code_for_its_own_scale() -> None:
    values = np.random.default_rng(0).laplace(scale=0.4, size=20_000)
    bits = {
        scale: code_lengths(np.round(values / 0.2), np.full_like(values, scale), 0.2).mean()
        for scale in (0.2, 0.4, 0.8)
    }
    assert min(bits, key=lambda scale: bits[scale]) == 0.4


def test_classes_cover_the_table_and_leave_frequency_zero_alone() -> None:
    found = classes(SPACE, SPACE)
    assert set(found) == set(range(num_classes(SPACE)))
    assert (found == 0).sum() == 1
    assert classes((7, 11, 6), SPACE).max() < num_classes(SPACE)


def test_scales_are_mean_magnitudes_and_absent_classes_get_the_mean_of_all() -> None:
    box: Box = ((0, 2), (0, 2), (0, 2))
    volumes = np.zeros((2, 1, *SPACE), dtype=np.float32)
    volumes[:, 0, :2, :2, :2] = np.array([0.25, 0.75], dtype=np.float32)[:, None, None, None]
    table = fit_scales(Side(volumes, [box, box]), SPACE)
    constant = 0.5 * np.sqrt(8)  # a constant's only coefficient, mean of the two volumes
    assert table[0] == pytest.approx(constant)
    absent = np.setdiff1d(np.arange(len(table)), classes((2, 2, 2), SPACE))
    assert table[absent] == pytest.approx(constant / 8)
