import numpy as np
import pytest

from vqmri.codes.schema import code_dtype, level_name


@pytest.mark.parametrize(
    ("num_embeddings", "expected"),
    [(2, "uint8"), (255, "uint8"), (256, "uint16"), (65535, "uint16"), (65536, "uint32")],
)
def test_the_type_is_the_narrowest_that_holds_the_fill_value(
    num_embeddings: int, expected: str
) -> None:
    dtype = code_dtype(num_embeddings)
    assert dtype == np.dtype(expected)
    assert int(np.array(num_embeddings).astype(dtype)) == num_embeddings


def test_levels_have_names_of_their_own() -> None:
    assert [level_name(level) for level in range(2)] == ["level_0", "level_1"]
