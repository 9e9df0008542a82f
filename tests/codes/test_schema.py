import numpy as np
import pytest

from vqmri.codes import CodeMap, code_maps


@pytest.mark.parametrize(
    ("num_embeddings", "expected"),
    [(2, "uint8"), (255, "uint8"), (256, "uint16"), (65535, "uint16"), (65536, "uint32")],
)
def test_the_type_is_the_narrowest_that_holds_the_fill_value(
    num_embeddings: int, expected: str
) -> None:
    code_map = CodeMap("level_0", (2, 3), num_embeddings)
    assert code_map.dtype == np.dtype(expected)
    values = np.array([0, num_embeddings - 1, num_embeddings]).astype(code_map.dtype)
    assert values.tolist() == [0, num_embeddings - 1, num_embeddings]
    assert code_map.is_valid(values[:2])
    assert not code_map.is_valid(values)


def test_real_gains_are_float32_and_any_finite_number() -> None:
    code_map = CodeMap("level_0_gain", (2, 3), 0)
    assert code_map.dtype == np.dtype("float32")
    assert code_map.is_valid(np.array([-1e9, 0.0, 3.5], dtype=np.float32))
    for bad in (np.nan, np.inf, -np.inf):
        assert not code_map.is_valid(np.array([1.0, bad], dtype=np.float32))


@pytest.mark.parametrize(
    ("grid", "items"),
    [((7, 7), 100), ((8, 8, 8), 1), ((7, 8, 9), 100), ((22, 23), 100), ((40, 40), 1)],
)
def test_small_grids_share_a_chunk_and_large_ones_have_their_own(
    grid: tuple[int, ...], items: int
) -> None:
    assert CodeMap("level_0", grid, 8).chunk_items(100) == items


def test_maps_of_a_model_in_its_order() -> None:
    assert code_maps(["level_0_gain", "level_0"], [[4, 6], (4, 6)], [0, 16]) == [
        CodeMap("level_0_gain", (4, 6), 0),
        CodeMap("level_0", (4, 6), 16),
    ]
    with pytest.raises(ValueError, match="shorter"):
        code_maps(["level_0_gain", "level_0"], [[4, 6]], [0, 16])
