import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from tests.conftest import REPO, tiny_values
from vqmri.build.plan import Scans, bits_per_voxel, proposed, rounded, scans_of
from vqmri.cli import main
from vqmri.errors import InputError, ParamsError
from vqmri.layout import Layout
from vqmri.params import Params
from vqmri.stages import plan as planning
from vqmri.stages.ingest import ingest
from vqmri.stages.train_vqvae import train_vqvae
from vqmri.training.footprint import Footprint


def dataset(
    number: int, extent: tuple[float, float, float], spacing: tuple[float, float, float]
) -> dict[str, Any]:
    """As dataset.json says it, of scans that are all alike."""
    names = ("min", "q1", "median", "q3", "max", "p95")
    return {
        "splits": {"train": {"scans": number, "subjects": number}},
        "raw": {
            "ras_extent": [dict.fromkeys(names, length) for length in extent],
            "foreground_extent": [],
            "ras_spacing": [dict.fromkeys(names[:-1], size) for size in spacing],
        },
    }


@pytest.mark.parametrize("number", [6, 40, 160, 1200, 40_000])
@pytest.mark.parametrize(
    ("extent", "spacing"),
    [
        ((8.0, 8.0, 8.0), (1.0, 1.0, 1.0)),
        ((38.1, 55.1, 41.1), (1.0, 1.0, 1.0)),
        ((160.0, 200.0, 170.0), (2.0, 2.0, 2.0)),
        ((250.0, 250.0, 181.0), (0.8681, 0.8681, 1.0)),
        ((30.0, 30.0, 400.0), (1.0, 1.0, 1.0)),
        ((240.0, 240.0, 150.0), (0.5, 0.5, 5.0)),
        ((9.0, 11.0, 9.0), (0.05, 0.05, 0.05)),
    ],
)
def test_every_proposal_is_valid_and_covers_the_scans(
    number: int, extent: tuple[float, float, float], spacing: tuple[float, float, float],
    tiny: Params, tmp_path: Path,
) -> None:  # fmt: skip
    scans = scans_of(tiny, dataset(number, extent, spacing))
    for size in (scans.spacing, 2 * scans.spacing):
        values = proposed(tiny, scans, size)
        (tmp_path / "params.yaml").write_text(yaml.safe_dump(values))
        params = Params.load(tmp_path / "params.yaml")
        shape, top = params.ingest.shape, params.train_vqvae.levels[-1].downsampling
        needed = [length / size for length in extent]
        assert all(n >= least - 0.011 for n, least in zip(shape, needed, strict=True))
        assert all(n < max(least + top, 2.1 * top) for n, least in zip(shape, needed, strict=True))
        reach = params.train_prior.num_layers * params.train_prior.radius
        assert reach >= max(shape) // top
        for level in params.train_vqvae.levels:
            tokens = number * math.prod(n // level.downsampling for n in shape)
            assert level.num_embeddings == 16 or tokens / level.num_embeddings >= 30


@pytest.mark.parametrize(("number", "levels"), [(20, [8]), (199, [8]), (200, [4, 8])])
def test_few_scans_get_few_codes(number: int, levels: list[int], tiny: Params) -> None:
    scans = scans_of(tiny, dataset(number, (160.0, 200.0, 170.0), (2.0, 2.0, 2.0)))
    after = proposed(tiny, scans, 2.0)["train_vqvae"]
    assert [level["downsampling"] for level in after["levels"]] == levels
    assert len(after["channels"]) == 3


def test_what_has_nothing_to_do_with_size_is_kept(tiny: Params) -> None:
    scans = Scans(number=20, extent=(50.0, 50.0, 50.0), spacing=1.0)
    before, after = tiny_values(), proposed(tiny, scans, 1.0)
    assert {"seed", "sample", "study", "evaluate"} <= after.keys() == before.keys()
    for name in ("seed", "sample", "study", "evaluate"):
        assert after[name] == before[name]
    for name in before["ingest"].keys() - {"spacing", "shape"}:
        assert after["ingest"][name] == before["ingest"][name]
    assert after["train_vqvae"]["quantizer"] == before["train_vqvae"]["quantizer"]
    assert after["train_prior"]["conditions"] == ["age", "sex"]


def test_the_hippocampus_gets_what_its_preset_has() -> None:
    """Of extents as in its dataset.json; only the third axis comes out four voxels longer.

    The preset goes to the limit of a rate, with a codebook of no power of two.
    """
    path = REPO / "vqmri/presets/hippocampus.yaml"
    preset, values = Params.load(path), yaml.safe_load(path.read_text())
    scans = Scans(number=159, extent=(38.2, 55.0, 42.0), spacing=1.0)
    after = proposed(preset, scans, 1.0)
    assert after["ingest"] == values["ingest"] | {"shape": [40, 56, 44]}
    values["train_vqvae"]["levels"] = [{"downsampling": 4, "num_embeddings": 256}]
    for section in ("train_vqvae", "encode", "train_prior"):
        assert after[section] == values[section], section


def test_spacings_are_round() -> None:
    assert [rounded(s) for s in (1.003, 0.8681, 0.9101, 2.0)] == [1.0, 0.87, 0.91, 2.0]


def test_bits_per_voxel_are_summed_over_levels(tiny: Params) -> None:
    settings = Params.load(REPO / "vqmri/presets/hippocampus-two-levels.yaml").train_vqvae
    assert bits_per_voxel(settings) == 7 / 4**3 + 10 / 8**3
    projected = Params.load(REPO / "vqmri/presets/hippocampus-projected.yaml").train_vqvae
    assert bits_per_voxel(projected) == pytest.approx((math.log2(300) + 3) / 4**3)
    real = projected.quantizer.model_copy(update={"num_gains": None})
    dearer = projected.model_copy(update={"quantizer": real})
    assert bits_per_voxel(dearer) == pytest.approx((math.log2(300) + 32) / 4**3)


def test_volumes_cover_the_foreground_where_it_is_cropped_about(tiny: Params) -> None:
    described = dataset(20, (200.0, 200.0, 160.0), (1.0, 1.0, 1.0))
    described["raw"]["foreground_extent"] = [{"p95": length} for length in (140.0, 180.0, 130.0)]
    assert scans_of(tiny, described).extent == (200, 200, 160)
    ingest = tiny.ingest.model_copy(update={"foreground_crop": True})
    cropped = tiny.model_copy(update={"ingest": ingest})
    assert scans_of(cropped, described).extent == (140, 180, 130)
    described["raw"]["foreground_extent"] = []  # ingested before it was asked for
    assert scans_of(cropped, described).extent == (200, 200, 160)


def test_pictures_and_an_old_description_are_refused(tiny: Params) -> None:
    with pytest.raises(ParamsError, match="for volumes"):
        scans_of(Params.load(REPO / "vqmri/presets/mnist.yaml"), {})
    with pytest.raises(InputError, match="vqmri ingest"):
        scans_of(tiny, {"raw": {}})


@pytest.fixture
def brains(monkeypatch: pytest.MonkeyPatch) -> None:
    found = dataset(6, (150.0, 190.0, 150.0), (1.0, 1.0, 1.0))
    monkeypatch.setattr(planning, "_dataset", lambda data: found)
    monkeypatch.setattr(planning, "multiply_adds_per_second", lambda device: 1e10)
    monkeypatch.setattr(planning, "_COARSER", (1.0, 1.25))


@pytest.mark.long
def test_it_goes_down_the_list_and_says_so(brains: None, tiny: Params, finished: Layout) -> None:
    roomy = planning.plan(tiny, finished, memory=1000)
    assert not roomy.reliefs
    assert roomy.params.train_vqvae.micro_batch is None
    found = roomy
    for part, checkpointing, spacing in ((1, False, 1.0), (1, True, 1.0), (None, False, 1.25)):
        needed = found.forecasts[0].memory / 2**30
        found = planning.plan(tiny, finished, memory=needed - 0.01)
        vqvae = found.params.train_vqvae
        if spacing == 1.0:
            assert (vqvae.micro_batch, vqvae.activation_checkpointing) == (part, checkpointing)
        assert found.params.ingest.spacing == (spacing, spacing, spacing)
        assert any(f"{needed:.2f} GiB" in relief for relief in found.reliefs)
        assert found.forecasts[0].memory <= found.available
    assert "does not fit: 1 mm, micro_batch 1" in planning.as_text(found)


def test_a_prior_that_does_not_fit_makes_it_coarser(
    brains: None, tiny: Params, finished: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured, asked = planning._prior_needs, []

    def huge_at_first(*arguments: Any) -> Footprint:
        asked.append(arguments[0].ingest.spacing)
        needs = measured(*arguments)
        return needs if asked[-1][0] > 1.0 else replace(needs, peak=2**40)

    monkeypatch.setattr(planning, "_prior_needs", huge_at_first)
    found = planning.plan(tiny, finished, memory=1000)
    assert found.params.ingest.spacing == (1.25, 1.25, 1.25)
    assert [relief.split(":")[0] for relief in found.reliefs] == ["1 mm, train_prior with one item"]


def test_a_memory_that_is_too_small_is_told_with_figures(
    brains: None, tiny: Params, finished: Layout
) -> None:
    with pytest.raises(ParamsError, match=r"1\.25 mm, micro_batch 1 .*: \d\.\d+ GiB"):
        planning.plan(tiny, finished, memory=0.3)
    with pytest.raises(ParamsError) as error:
        planning.plan(tiny, finished, memory=0.3, spacing=6.0)
    assert "6 mm" in str(error.value)
    assert "1 mm" not in str(error.value)


def test_what_it_writes_runs(copy_of_finished: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    root = copy_of_finished.root
    before = (root / "params.yaml").read_text()
    monkeypatch.chdir(root)
    tried = CliRunner().invoke(main, ["plan", "--dry-run"])
    assert tried.exit_code == 0, tried.output
    assert (root / "params.yaml").read_text() == before
    done = CliRunner().invoke(main, ["plan"])
    assert done.exit_code == 0, done.output
    assert "bits per voxel" in done.output
    assert (root / "params.yaml.old").read_text() == before
    text = (root / "params.yaml").read_text()
    assert text.startswith("# Planned by `vqmri plan` for 16 training scans on ")
    values = yaml.safe_load(text)
    values["train_vqvae"] |= {"steps": 2, "warmup": 1}
    (root / "params.yaml").write_text(yaml.safe_dump(values))
    params = Params.load(root / "params.yaml")
    ingest(params, copy_of_finished)
    assert train_vqvae(params, copy_of_finished)["loss"] > 0


def test_no_params_of_the_user_are_lost(
    copy_of_finished: Layout, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(copy_of_finished.root)
    texts = []
    for command, old in (
        (["init", "--preset", "phantom"], "params.yaml.old"),
        (["plan", "--spacing", "10"], "params.yaml.old2"),
        (["plan", "--spacing", "12"], "params.yaml.old3"),
    ):
        texts.append(Path("params.yaml").read_text())
        done = CliRunner().invoke(main, command)
        assert done.exit_code == 0, done.output
        assert f"what it was is in {old}." in done.output
        assert Path(old).read_text() == texts[-1]
    assert Path("params.yaml.old").read_text() == texts[0]


def test_without_volumes_it_says_what_to_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "params.yaml").write_text(yaml.safe_dump(tiny_values()))
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(main, ["plan"])
    assert done.exit_code == 3
    assert "`vqmri ingest`" in done.output
