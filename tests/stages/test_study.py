"""The study of the prior, on the tiny project and without one."""

import json

import numpy as np
import pytest

from vqmri.errors import IntegrityError
from vqmri.layout import Layout
from vqmri.outputs.manifest import digest
from vqmri.params import Params
from vqmri.stages.findings import read_study
from vqmri.stages.study import TABLE, study
from vqmri.stages.train_prior import train_prior

WAYS = [
    "real held-out codes", "real training codes", "uniform codes", "marginal of each position",
    "one scan, nearest codes (τ → 0)", "one scan, drawn by distance (τ = 1)",
    "prior, likeliest code", "prior, T = 1",
]  # fmt: skip


def inputs(data: Layout) -> dict[str, str]:
    return {name: digest(data.output(name)) for name in ("volumes", "vqvae", "codes", "prior")}


def test_every_way_is_measured_and_decoded(finished: Layout) -> None:
    studied = read_study(finished.output("study"), inputs(finished))
    rows = {row["way"]: row for row in studied.rows}
    assert list(rows) == WAYS
    assert rows["uniform codes"]["bits_per_code"] == 4  # log2 of 16
    assert rows["real held-out codes"]["neighbour_divergence"] == 0
    assert rows["one scan, nearest codes (τ → 0)"]["unique"] == 1
    assert rows["one scan, nearest codes (τ → 0)"]["pairwise_difference"] == 0
    assert rows["prior, likeliest code"]["items"] == 4
    assert rows["prior, T = 1"]["unique"] == 4
    assert all(planes.shape == (4, 16, 16) for planes in studied.decoded)
    metrics = json.loads(finished.metrics.read_text())
    assert rows["prior, T = 1"]["bits_per_code"] == metrics["prior_bits_per_code"]


def test_the_nearest_codes_of_a_scan_decode_to_its_reconstruction(finished: Layout) -> None:
    decoded = dict(
        zip(WAYS, read_study(finished.output("study"), inputs(finished)).decoded, strict=True)
    )
    held = decoded["real held-out codes"]
    np.testing.assert_allclose(decoded["one scan, nearest codes (τ → 0)"][0], held[0], atol=1e-6)


def test_without_a_section_the_table_is_empty(copy_of_finished: Layout, tiny: Params) -> None:
    assert study(tiny.model_copy(update={"study": None}), copy_of_finished) == {}
    assert json.loads((copy_of_finished.output("study") / TABLE).read_text()) == []
    assert read_study(copy_of_finished.output("study"), inputs(copy_of_finished)).rows == []


def test_the_same_params_give_the_same_bytes(copy_of_finished: Layout, tiny: Params) -> None:
    before = (copy_of_finished.output("study") / "MANIFEST.json").read_bytes()
    metrics = study(tiny, copy_of_finished)
    assert (copy_of_finished.output("study") / "MANIFEST.json").read_bytes() == before
    assert metrics["study_prior_unique"] == 4


def test_a_study_of_other_models_is_not_reported(copy_of_finished: Layout, tiny: Params) -> None:
    other = tiny.model_copy(update={"seed": 3})
    train_prior(other, copy_of_finished)
    with pytest.raises(IntegrityError, match="vqmri study"):
        read_study(copy_of_finished.output("study"), inputs(copy_of_finished))
    assert study(tiny, copy_of_finished)["study_prior_unique"] == 4
