"""Varied copies of training volumes, encoded for the prior."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import tiny_values
from vqmri.build.encode import variations
from vqmri.codes import CodeStore
from vqmri.errors import ParamsError
from vqmri.layout import Layout
from vqmri.params import Params, Variations
from vqmri.prior import Prior
from vqmri.scans.split import TRAIN
from vqmri.scans.store import VolumeStore
from vqmri.scans.volume import Record
from vqmri.stages.encode import encode
from vqmri.stages.train_prior import _load, train_prior
from vqmri.training.model_folder import HISTORY, load_model
from vqmri.vqvae import VQVAE

STILL = {"flips": [0], "rotation": 0.0, "scaling": 0.0, "translation": 0.0, "contrast": 0.0}
MOVING = {"flips": [], "rotation": 8.0, "scaling": 0.1, "translation": 10.0, "contrast": 0.2}


def with_variations(**values: Any) -> Params:
    changed = tiny_values()
    changed["encode"]["variations"] = values
    return Params.model_validate(changed)


def test_every_second_copy_is_the_mirror_image(copy_of_finished: Layout) -> None:
    plain = CodeStore(copy_of_finished.output("codes"))
    count = len(plain.attributes["records"])
    before = plain.read(range(count))[0]
    swaps = {"sex": ["F", "M"]}
    params = with_variations(copies=2, augment=STILL, swaps=swaps)
    assert encode(params, copy_of_finished)["variations"] == 2 * 16

    store = CodeStore(copy_of_finished.output("codes"))
    records, varied = store.attributes["records"], store.attributes["variations"]
    assert (store.read(range(count))[0] == before).all()
    rows = [row for row, record in enumerate(records) if record["split"] == TRAIN]
    assert [copy["of"] for copy in varied] == rows * 2
    codes = store.read(range(count, store.count))[0]
    assert (codes[: len(rows)] == before[rows]).mean() > 0.99  # another batch, other last bits
    volumes = VolumeStore(copy_of_finished.output("volumes"))
    model, _ = load_model(copy_of_finished.output("vqvae"), VQVAE)
    mirrored = torch.from_numpy(volumes.read([volumes.records[row] for row in rows])).flip(2)
    with torch.inference_mode():
        expected = model.encode(mirrored)[0].numpy()
    assert (codes[len(rows) :] == expected).mean() > 0.99
    assert (codes[len(rows) :] == before[rows]).mean() < 0.95
    for copy in varied:
        sex = records[copy["of"]]["covariates"]["sex"]
        assert copy["covariates"]["sex"] == ({"F": "M", "M": "F"}[sex] if copy["mirrored"] else sex)
        assert copy["covariates"]["age"] == records[copy["of"]]["covariates"]["age"]


def test_copies_differ_and_come_out_alike_however_shards_are_cut(copy_of_finished: Layout) -> None:
    params = with_variations(copies=3, augment=MOVING)
    encode(params, copy_of_finished)
    store = CodeStore(copy_of_finished.output("codes"))
    codes = store.read(range(20, store.count))[0].reshape(3, 16, -1)
    assert not (codes[0] == codes[1]).all(axis=1).any()
    values = params.model_dump(mode="json")
    values["encode"]["items_per_shard"] = 11
    encode(Params.model_validate(values), copy_of_finished)
    again = CodeStore(copy_of_finished.output("codes"))
    other = again.read(range(20, again.count))[0].reshape(3, 16, -1)
    assert (codes == other).mean() > 0.99


def test_the_table_of_volumes_is_read_once_however_many_shards_there_are(
    copy_of_finished: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []

    class Store(VolumeStore):
        def __init__(self, folder: Path) -> None:
            opened.append(folder)
            super().__init__(folder)

    monkeypatch.setattr("vqmri.stages.encode.VolumeStore", Store)
    assert encode(with_variations(copies=1, augment=STILL), copy_of_finished)["items"] == 20 + 16
    assert len(opened) == 2, "by the stage, and by the process that encodes its five shards"


def test_the_prior_learns_from_the_copies_alone_with_their_covariates(
    copy_of_finished: Layout,
) -> None:
    params = with_variations(copies=2, augment=STILL, swaps={"sex": ["F", "M"]})
    encode(params, copy_of_finished)
    train_prior(params, copy_of_finished)
    folder = copy_of_finished.output("prior")
    history = json.loads((folder / HISTORY).read_text())
    assert [row["step"] for row in history] == [4, 8, 12]  # 32 items in batches of 8
    prior, _ = load_model(folder, Prior)
    data = _load(CodeStore(copy_of_finished.output("codes")), prior.covariates)
    assert len(data.train[0]) == len(data.train_rows) == len(data.subjects) == 32
    assert [len(side.rows) for side in data.sides.values()] == [4, 4]
    assert data.sides.keys() <= history[-1].keys()
    sex = data.train_rows.numpy()[:, [c.name for c in prior.covariates].index("sex")]
    assert (sex[:16] == 1 - sex[16:]).all()


def of(split: str, covariates: dict[str, Any]) -> Record:
    return Record(0, "", "", "", [], [], [], [], covariates, None, split)


def test_only_training_volumes_are_varied_and_only_swapped_values_change() -> None:
    rows = [
        of("held_out", {"side": "left"}),
        of(TRAIN, {"side": "left", "age": 3}),
        of(TRAIN, {"side": "unknown"}),
        of(TRAIN, {}),
    ]
    settings = Variations.model_validate(
        {"copies": 2, "augment": STILL, "swaps": {"side": ["left", "right"]}}
    )
    found = [(v.of, v.mirrored, v.covariates) for v in variations(settings, rows)]
    assert found == [
        (1, False, {"side": "left", "age": 3}), (2, False, {"side": "unknown"}), (3, False, {}),
        (1, True, {"side": "right", "age": 3}), (2, True, {"side": "unknown"}), (3, True, {}),
    ]  # fmt: skip
    assert variations(None, rows) == []


@pytest.mark.parametrize("axis", [1, 2])
def test_without_the_first_axis_no_copy_is_mirrored(axis: int) -> None:
    settings = Variations.model_validate({"copies": 2, "augment": STILL | {"flips": [axis]}})
    assert not any(v.mirrored for v in variations(settings, [of(TRAIN, {"sex": "F"})]))


def test_values_to_exchange_that_no_scan_has_are_refused(copy_of_finished: Layout) -> None:
    before = copy_of_finished.output("codes").stat().st_ino
    wrong = with_variations(copies=2, augment=STILL, swaps={"sex": ["female", "male"]})
    with pytest.raises(ParamsError, match=r"swaps\.sex: no scan has 'female'.*'F', 'M'"):
        encode(wrong, copy_of_finished)
    assert copy_of_finished.output("codes").stat().st_ino == before
    nowhere = with_variations(copies=2, augment=STILL | {"flips": []}, swaps={"sex": ["f", "m"]})
    records = VolumeStore(copy_of_finished.output("volumes")).records
    assert len(variations(nowhere.encode.variations, records)) == 2 * 16


def test_padding_counts_on_neither_side_of_the_split(
    copy_of_finished: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Codes beyond the field of view are easy: training bits over them would flatter beside."""
    boxes = []

    def masks(_: CodeStore, chosen: list[Any]) -> list[str]:
        boxes.append(chosen)
        return ["in view"]

    monkeypatch.setattr("vqmri.stages.train_prior.masks_in_view", masks)
    store = CodeStore(copy_of_finished.output("codes"))
    data = _load(store, load_model(copy_of_finished.output("prior"), Prior)[0].covariates)
    assert [len(chosen) for chosen in boxes] == [4, 4]
    assert [side.masks for side in data.sides.values()] == [["in view"], ["in view"]]
