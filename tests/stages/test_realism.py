import numpy as np
import pytest

from vqmri.evaluation.features import Projection
from vqmri.scans.volume import Record
from vqmri.stages.realism import HELD, SAMPLES, TRAINING, compare, halves


def record(index: int) -> Record:
    return Record(index, f"sub-{index // 2}", f"{index}.nii", "", [], [], [], [], {}, None, "train")


@pytest.mark.parametrize("count", [0, 1, 2, 9, 10])
def test_both_scans_of_a_person_are_in_one_half(count: int) -> None:
    records = [record(index) for index in range(count)]
    first, second = halves(records, np.random.default_rng(0))
    assert sorted([*first, *second], key=lambda r: r.index) == records
    assert not {r.subject for r in first} & {r.subject for r in second}
    assert abs(len(first) - len(second)) <= 3


def test_samples_that_are_other_peoples_scans_have_ratios_of_1() -> None:
    """Measured along their own components, training scans would lie too far from other ones."""
    items, ratios = 24, []
    for seed in range(60):
        random = np.random.default_rng(seed)
        mix = random.standard_normal((50, 50)) * np.linspace(0.02, 1, 50)
        fitting, train, held, samples = (
            random.standard_normal((items, 50)) @ mix.T for _ in range(4)
        )
        project = Projection.fit(fitting)
        sets = {HELD: held, TRAINING: train, SAMPLES: samples}
        found = {"": {name: project(features) for name, features in sets.items()}}
        ratios.append(compare(found, items, seed)[SAMPLES]["frechet_ratio"])
    assert np.exp(np.mean(np.log(ratios))) == pytest.approx(1, abs=0.1)
