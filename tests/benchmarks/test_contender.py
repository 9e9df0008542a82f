from pathlib import Path

import pytest

from benchmarks.own import QUANTIZERS, quantizer_options
from benchmarks.peers import PEERS
from benchmarks.quantizers import build, rates, settings_of_preset
from benchmarks.volumes import read_split
from vqmri.errors import InputError

SETTINGS = settings_of_preset()

BITS_PER_CODE = {
    "codebook_loss K=256": 8,
    "ema K=256": 8,
    "ema K=2048": 11,
    "ema K=256 kmeans": 8,
    "projected K=256 gains=8": 11,
    "projected K=256 real gain": 40,
    "projected K=32 gains=8": 8,
} | dict.fromkeys(PEERS, 8)


@pytest.mark.parametrize("name", BITS_PER_CODE)
def test_codes_and_gains_are_both_counted(name: str, volumes: Path) -> None:
    split = read_split(volumes)
    contender = build(name, split, SETTINGS, steps=2)
    expected = BITS_PER_CODE[name] / 4**3
    assert contender.bits_per_voxel(split.space) == pytest.approx(expected)


def test_the_rates_are_those_of_the_quantizers(volumes: Path) -> None:
    split = read_split(volumes)
    assert rates(split, SETTINGS, 2) == [8 / 64, 11 / 64, 40 / 64]


def test_networks_start_equal_whatever_the_quantizer(volumes: Path) -> None:
    split = read_split(volumes)
    states = []
    for name in QUANTIZERS:
        state = build(name, split, SETTINGS, steps=2, seed=3).model.state_dict()
        states.append({key: value for key, value in state.items() if "quantizers" not in key})
    for state in states[1:]:
        assert state.keys() == states[0].keys()
        assert all(bool((state[key] == states[0][key]).all()) for key in state)


def test_only_named_options_differ_from_the_preset() -> None:
    preset = {"kind": "ema", "decay": 0.9, "commitment_cost": 0.5, "initialisation": "kmeans"}
    assert quantizer_options(preset, {}) == preset | {"initialisation": "data"}
    loss = quantizer_options(preset, {"kind": "codebook_loss"})
    assert loss == {"kind": "codebook_loss", "commitment_cost": 0.5, "initialisation": "data"}
    projected = quantizer_options(preset, {"kind": "projected", "num_gains": 8})
    assert projected["projection_cost"] == 0.5


def test_volumes_that_are_not_there(volumes: Path) -> None:
    with pytest.raises(InputError, match="vqmri ingest"):
        read_split(volumes / "nothing")
