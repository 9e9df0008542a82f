"""What a prior that learnt from varied copies knows by heart is looked for in copies."""

import json
from dataclasses import replace

import numpy as np
import pytest

from tests.stages.test_variations import MOVING, STILL, with_variations
from vqmri.evaluation.overtrained import overtrain
from vqmri.layout import Layout
from vqmri.scans.split import HELD_OUT, TRAIN
from vqmri.stages.encode import encode
from vqmri.stages.known import Side, mirrored, sides
from vqmri.stages.opened import Opened, open_outputs
from vqmri.stages.privacy import _near, _runs, _told
from vqmri.stages.sample import sample
from vqmri.stages.train_prior import train_prior
from vqmri.training.model_folder import DESCRIPTION


def varied_outputs(data: Layout, **variations: object) -> Opened:
    params = with_variations(**variations)
    for stage in (encode, train_prior, sample):
        stage(params, data)
    names = ("volumes", "vqvae", "codes", "prior", "samples")
    return open_outputs({name: data.output(name) for name in names})


def test_both_sides_have_equally_many_copies_made_in_one_way(copy_of_finished: Layout) -> None:
    moving = MOVING | {"flips": [0], "rotation": 0.0, "scaling": 0.0}
    opened = varied_outputs(copy_of_finished, copies=2, augment=moving, swaps={"sex": ["F", "M"]})
    train, held = sides(opened, seed=0)
    assert (train.scans, len(train.rows), held.scans, len(held.rows)) == (16, 48, 4, 12)
    assert set(train.rows) == set(opened.indices(TRAIN))
    assert set(held.rows) == set(opened.indices(HELD_OUT))
    prior = opened.generator.prior
    for side in (train, held):
        volumes = np.concatenate(list(side.volumes()))
        for found, stored in zip(opened.generator.encode(volumes), side.maps, strict=True):
            assert (found == stored).mean() > 0.99  # those of training copies were read
        own, copies = side.maps[0][: side.scans], side.maps[0][side.scans :]
        differs = (own != copies[: side.scans]).any(axis=(1, 2, 3))
        assert differs.mean() > 0.5  # by chance a copy is moved by nothing
        sex = [c.name for c in prior.covariates].index("sex")
        values = side.covariates(prior)[:, sex].numpy()
        first, second = side.scans, 2 * side.scans
        assert (values[:first] == values[first:second]).all()
        assert (values[:first] == 1 - values[second:]).all()
    assert sides(opened, seed=1)[0].rows[: train.scans] == train.rows[: train.scans]


def test_a_smaller_side_has_no_more_copies_of_a_scan(
    copy_of_finished: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = varied_outputs(copy_of_finished, copies=3, augment=STILL | {"contrast": 0.2})
    monkeypatch.setattr("vqmri.stages.known.MOST_ITEMS", 48)  # of 16 training scans: two copies
    for side in sides(opened, seed=0):
        assert len(side.rows) == 3 * side.scans


def test_a_prior_that_knows_copies_by_heart_is_found_by_copies(copy_of_finished: Layout) -> None:
    moving = MOVING | {"rotation": 0.0, "scaling": 0.0}
    opened = varied_outputs(copy_of_finished, copies=1, augment=moving)
    train, held = sides(opened, seed=0)
    copies, rows = train._copies, train.rows[:4]
    assert copies is not None
    each = [(number, copy) for number, copy in copies.each if copy.of in rows]
    own = Side(opened, rows, replace(copies, each=each))
    arguments = json.loads((opened.folders["prior"] / DESCRIPTION).read_text())["arguments"]
    learnt = [values[4:] for values in own.tensors]
    covariates = own.covariates(opened.generator.prior)[4:]
    prior = overtrain(arguments, learnt, covariates, steps=150, seed=0)
    assert _told(prior, own, held, seed=0).auc == 1
    assert (own.bits(prior) < Side(opened, rows).bits(prior) / 2).all(), "the scans are not known"


def test_a_sample_that_is_a_moved_training_scan_is_found(copy_of_finished: Layout) -> None:
    moving = MOVING | {"rotation": 0.0, "scaling": 0.0}
    opened = varied_outputs(copy_of_finished, copies=1, augment=moving)
    train, held = sides(opened, seed=0)
    copies = np.concatenate(list(train.volumes()))[train.scans :]
    found = _near(opened, lambda: [copies], train, held, seed=0)
    assert found.metrics["nearest_correlation"] == pytest.approx(1, abs=1e-5)
    assert found.metrics["nearest_is_training_by_correlation"] == 1
    assert [row for row, _ in found.nearest] == train.rows[train.scans :]
    metrics, _ = _runs(opened, [m[train.scans :] for m in train.maps], train, held)
    positions = int(np.prod(opened.codes.grids[0]))
    assert metrics["longest_run_level_0"] == positions > metrics["longest_run_level_0_of_held_out"]


def test_without_variations_there_are_no_copies(copy_of_finished: Layout) -> None:
    opened = varied_outputs(copy_of_finished, copies=1, augment=STILL)
    alone = Side(opened, opened.indices(HELD_OUT))
    assert alone.rows == opened.indices(HELD_OUT)
    assert len(np.concatenate(list(alone.volumes()))) == 4


def test_the_field_of_view_of_a_mirrored_copy() -> None:
    assert mirrored(((1, 4), (0, 3), (2, 6)), width=10) == ((6, 9), (0, 3), (2, 6))
