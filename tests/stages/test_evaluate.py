"""What the report says of the samples, on phantoms that are few and small but real."""

import json
import math
import re
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from tests.conftest import run_stages, tiny_values
from vqmri.evaluation.gates import check
from vqmri.evaluation.likelihood import Likelihood
from vqmri.layout import Layout
from vqmri.outputs import Identity
from vqmri.params import Params
from vqmri.scans.phantom import ventricle_volume
from vqmri.scans.split import HELD_OUT, TRAIN
from vqmri.scans.store import VolumeStore
from vqmri.stages import figures
from vqmri.stages.evaluate import evaluate
from vqmri.stages.meanings import meaning
from vqmri.stages.opened import Opened, open_outputs
from vqmri.stages.privacy import _copies, privacy
from vqmri.stages.realism import FAKES, SAMPLES, TELLING, realism
from vqmri.stages.sample import sample

GATES = {"psnr_db": {"least": 1}, "frechet_ratio": {"most": 1e-9}, "nonsense": {"most": 2}}


def values() -> dict[str, Any]:
    found = tiny_values()
    found["ingest"]["source"]["count"] = 40
    found["ingest"]["held_out"] = 0.35
    found["train_prior"]["steps"] = 40
    found["sample"] |= {"count": 16, "covariates": {"age": [25, 55, 85], "sex": ["F", "M"]}}
    found["evaluate"] |= {"control_steps": 150, "gates": GATES, "licence": "CC0 & free"}
    found["evaluate"]["gallery"] = 3
    return found


@pytest.fixture(scope="module")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Layout:
    return run_stages(values(), tmp_path_factory.mktemp("evaluated"))[0]


@pytest.fixture(scope="module")
def metrics(evaluated: Layout) -> dict[str, float]:
    found: dict[str, float] = json.loads(evaluated.metrics.read_text())
    return found


@pytest.fixture(scope="module")
def opened(evaluated: Layout) -> Opened:
    names = ("volumes", "vqvae", "codes", "prior", "samples")
    return open_outputs({name: evaluated.output(name) for name in names})


def test_every_figure_has_a_meaning_and_is_finite(metrics: dict[str, float]) -> None:
    assert all(meaning(name) for name in metrics)
    assert all(math.isfinite(value) for value in metrics.values())


def test_known_fakes_are_farther_from_real_scans_than_other_real_scans(opened: Opened) -> None:
    found = realism(opened, None, seed=0)
    assert len(opened.records(HELD_OUT)) == 14
    assert found.count == len(opened.records(TRAIN)) // 2 == 13  # the others give the axes
    for fake in ("mean training volume", "blurred training scans"):  # codes of so short a training
        assert found.rows[fake]["frechet_ratio"] > 2  # decode to fakes themselves
        assert found.rows[fake]["mmd_ratio"] > 2
    assert found.rows.keys() >= {*FAKES, SAMPLES}
    assert found.rows["training scans"]["frechet_ratio"] == 1
    assert found.rows["training scans"]["coverage_ratio"] == 1
    for gate in TELLING:
        fooled = [f for f in FAKES if gate.reached(found.rows[f].get(gate.name, math.nan))]
        assert found.blind[gate.name] == fooled
    again = realism(opened, None, seed=0)
    assert again == found
    for gate in TELLING:
        name = gate.name
        assert found.metrics[f"{name}_low"] <= found.metrics[name] <= found.metrics[f"{name}_high"]
        assert found.metrics[name] == found.rows[SAMPLES][name]


def test_very_large_volumes_are_compared_too(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("vqmri.stages.realism.MOST_VALUES", 1)
    assert realism(opened, None, seed=0).count == 11


def test_those_held_out_are_drawn_from_all_rows_of_the_table(
    opened: Opened, monkeypatch: pytest.MonkeyPatch
) -> None:
    """There are 14, of which 13 are compared; the first ones of a table may be of one site."""
    left_out: list[int] = []

    def sets(opened: Opened, held: Any, *_: Any) -> Any:
        left_out.extend(r.index for r in opened.records(HELD_OUT) if r not in held)
        raise KeyboardInterrupt

    monkeypatch.setattr("vqmri.stages.realism._sets", sets)
    for seed in range(6):
        with pytest.raises(KeyboardInterrupt):
            realism(opened, None, seed)
    assert len(left_out) == 6
    assert len(set(left_out)) > 1


def test_a_collapsed_codebook_has_figures(opened: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    collapsed = Likelihood([0.01], [0.0], [10])
    monkeypatch.setattr(figures, "held_out_likelihood", lambda *_: collapsed)
    found = figures.prior(opened)
    assert (found["prior_bits_per_code"], found["marginal_bits_per_code"]) == (0.01, 0)
    assert "prior_saving" not in found


def test_a_maximum_stands_beside_how_often_chance_gives_it() -> None:
    best, of_held = np.array([0.7, 0.9, 0.8]), np.array([0.85])
    assert "as by chance in 75 %" in _copies("samples", best, of_held)[3]
    assert "no sample is nearer" in _copies("samples", best[:1], of_held)[3]


def test_a_measure_that_a_fake_passes_is_no_gate() -> None:
    from vqmri.evaluation.gates import Gate

    figures = {"frechet_ratio": 1.0, "frechet_ratio_fooled_by": 1.0, "mmd_ratio": 1.0}
    gates = [Gate("frechet_ratio", most=2.0), Gate("mmd_ratio", most=2.0)]
    fooled, fine = check(gates, figures | {"mmd_ratio_fooled_by": 0.0})
    assert (fooled.passed, fooled.fooled) == (False, True)
    assert "no gate" in str(fooled)
    assert (fine.passed, fine.fooled) == (True, False)


def test_the_overtrained_control_is_found(opened: Opened, metrics: dict[str, float]) -> None:
    assert metrics["mia_of_overtrained_auc"] >= 0.9
    assert metrics["mia_of_overtrained_flagged"] == 1
    assert metrics["nearest_is_training_of_copies_by_correlation"] == 1
    found = privacy(opened, None, seed=0)
    assert "mia_of_overtrained_auc" not in found.metrics
    assert found.metrics["mia_auc"] == metrics["mia_auc"]
    assert metrics["mia_control_low"] <= 0.5 <= metrics["mia_control_high"]
    assert len(found.nearest) == 16
    train = {i for i, r in enumerate(opened.volumes.records) if r.split == "train"}
    assert {row for row, _ in found.nearest} <= train


def test_the_nearest_training_scan_is_that_of_the_highest_correlation(opened: Opened) -> None:
    found = privacy(opened, None, seed=0)
    drawn = opened.decode_samples(range(3))
    rows = opened.indices("train")
    known = opened.volumes.read([opened.volumes.records[row] for row in rows])
    for number in range(3):
        r = [np.corrcoef(drawn[number].ravel(), other.ravel())[0, 1] for other in known]
        assert found.nearest[number][0] == rows[int(np.argmax(r))]
        assert found.nearest[number][1] == pytest.approx(max(r), abs=1e-5)


def test_the_priors_help_is_in_bits_of_the_same_voxels(metrics: dict[str, float]) -> None:
    assert metrics["bits_per_voxel"] == pytest.approx(4 / 4**3)  # one of 16 codes per 4³ voxels
    assert metrics["bits_per_voxel_with_prior"] == pytest.approx(
        metrics["prior_bits_per_code"] / 4**3
    )


def test_compression_is_that_of_the_voxels_in_view(
    opened: Opened, metrics: dict[str, float]
) -> None:
    plain = zipped = bits = 0.0
    for record in opened.records(HELD_OUT):
        box = tuple(slice(*ends) for ends in record.box)
        volume = opened.volumes.read([record])[0][(slice(None), *box)]
        voxels = np.rint(volume * 32767).astype("<i2")
        plain += voxels.size * 16
        zipped += 8 * len(zlib.compress(voxels.tobytes()))
        bits += 4 * math.prod(-(-e.stop // 4) - e.start // 4 for e in box)
    assert metrics["compression_of_int16"] == pytest.approx(plain / bits)
    assert metrics["compression_of_gzip"] == pytest.approx(zipped / bits)


def test_the_report_has_all_pages_and_the_documents_no_gap(evaluated: Layout) -> None:
    folder = evaluated.output("report")
    html = (folder / "report.html").read_text()
    for page in ("data", "reconstruction", "codebook", "prior-study", "samples", "use", "privacy"):
        assert f'id="page-{page}"' in html
    assert "nonsense" in html
    for name in ("MODEL_CARD.md", "DATASHEET.md"):
        text = (folder / name).read_text()
        assert "CC0" in text
        assert "None" not in text
        assert not re.search(r"\bnan\b", text)


def test_equal_inputs_give_the_same_report(evaluated: Layout, tmp_path: Path) -> None:
    params = Params.load(evaluated.root / "params.yaml")
    before = json.loads((evaluated.output("report") / "MANIFEST.json").read_text())
    figures = evaluated.metrics.read_text()
    evaluate(params, evaluated)
    assert evaluated.metrics.read_text() == figures
    assert json.loads((evaluated.output("report") / "MANIFEST.json").read_text()) == before


def test_other_weights_under_the_same_name_are_another_report(
    copy_of_finished: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[str] = []

    def publishing(target: Path, work: Path, identity: Identity) -> Any:
        found.append(identity.fingerprint)
        raise KeyboardInterrupt

    monkeypatch.setattr("vqmri.stages.evaluate.publishing", publishing)
    values = tiny_values()
    values["evaluate"]["weights"] = "net.safetensors"
    for content in (None, b"one", b"other", b"one"):
        if content:
            (copy_of_finished.root / "net.safetensors").write_bytes(content)
        with pytest.raises(KeyboardInterrupt):
            evaluate(Params.model_validate(values), copy_of_finished)
    assert found[1] == found[3]
    assert len(set(found)) == 3


def test_residual_noise_is_each_sample_s_own_and_told(copy_of_finished: Layout) -> None:
    changed = tiny_values()
    changed["sample"]["residual"] = True
    names = ("volumes", "vqvae", "codes", "prior", "samples")

    def roughness(volumes: np.ndarray) -> float:
        return float(np.abs(np.diff(volumes[:, 0], n=2, axis=1)).mean())

    smooth = open_outputs({n: copy_of_finished.output(n) for n in names}).decode_samples(range(10))
    sample(Params.model_validate(changed), copy_of_finished)
    opened = open_outputs({n: copy_of_finished.output(n) for n in names})
    rough = opened.decode_samples(range(10))
    assert roughness(smooth) < roughness(rough)
    assert np.allclose(opened.decode_samples([7])[0], rough[7], atol=1e-5)
    sidecar = next(copy_of_finished.output("samples").glob("sub-*00003/anat/*.json"))
    assert json.loads(sidecar.read_text())["Residual"] is True


def test_ventricles_of_phantoms_grow_with_age(evaluated: Layout) -> None:
    store = VolumeStore(evaluated.output("volumes"))
    volumes = [
        ventricle_volume(store.read([r])[0, 0], np.array(r.normalised_affine))
        for r in store.records
    ]
    ages = [float(r.covariates["age"]) for r in store.records]
    assert np.corrcoef(ages, volumes)[0, 1] > 0.5


def test_a_gate_has_one_bound(tmp_path: Path) -> None:
    found = tiny_values()
    found["evaluate"]["gates"] = {"psnr_db": {"least": 1, "most": 2}, "ssim": {}}
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(found))
    from vqmri.errors import ParamsError

    with pytest.raises(ParamsError, match=r"evaluate\.gates\.psnr_db(.|\n)*evaluate\.gates\.ssim"):
        Params.load(tmp_path / "params.yaml")
