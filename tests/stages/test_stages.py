"""What a finished run holds, read as a user would."""

import csv
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

from tests.conftest import tiny_values
from vqmri.codes import CodeStore
from vqmri.errors import IntegrityError
from vqmri.layout import MADE_BY, Layout
from vqmri.outputs import verify
from vqmri.params import Params
from vqmri.scans.store import VolumeStore
from vqmri.stages.encode import encode
from vqmri.stages.evaluate import evaluate
from vqmri.stages.ingest import ingest
from vqmri.stages.sample import sample
from vqmri.stages.study import study
from vqmri.stages.train_prior import train_prior
from vqmri.stages.train_vqvae import train_vqvae
from vqmri.stages.use import use
from vqmri.training.model_folder import load_model
from vqmri.vqvae import VQVAE


def test_every_output_is_published_whole_and_no_work_is_left(finished: Layout) -> None:
    for name in MADE_BY:
        assert verify(finished.output(name)).items
    assert all(path.suffix in {".lock", ".sqlite"} for path in finished.work.iterdir())


def test_codes_are_those_of_the_volumes_in_the_same_order(finished: Layout) -> None:
    volumes, codes = VolumeStore(finished.output("volumes")), CodeStore(finished.output("codes"))
    model, about = load_model(finished.output("vqvae"), VQVAE)
    assert codes.attributes["vqvae_weights"] == about["weights"]
    assert [row["subject"] for row in codes.attributes["records"]] == [
        record.subject for record in volumes.records
    ]
    with torch.inference_mode():
        expected = model.encode(torch.from_numpy(volumes.read(volumes.records[8:16])))[0]
    assert (codes.read(range(8, 16))[0] == expected.numpy()).all()
    assert codes.read([0])[0].dtype == np.uint8


def test_samples_are_scans_that_decode_from_their_codes(finished: Layout) -> None:
    folder = finished.output("samples")
    paths = sorted(folder.glob("sub-*/anat/*.nii.gz"))
    assert len(paths) == 10
    model, _ = load_model(finished.output("vqvae"), VQVAE)
    codes = CodeStore(folder).read([9])
    with torch.inference_mode():
        volume = model.decode([torch.from_numpy(level.astype(np.int64)) for level in codes])
    image = nib.load(paths[9])
    assert isinstance(image, nib.Nifti1Image)
    np.testing.assert_allclose(image.get_fdata(), volume[0, 0].clamp(0, 1).numpy(), atol=1e-5)
    assert nib.orientations.aff2axcodes(image.affine) == ("R", "A", "S")
    assert image.header.get_zooms() == (10.0, 10.0, 10.0)
    centre = image.affine @ [*(np.array(image.shape) - 1) / 2, 1]
    np.testing.assert_allclose(centre[:3], 0, atol=1e-4)
    description = json.loads((folder / "dataset_description.json").read_text())
    assert description["GeneratedBy"][0]["Name"] == "vqmri"


def test_metrics_are_the_published_ones_and_in_their_ranges(finished: Layout) -> None:
    metrics = json.loads(finished.metrics.read_text())
    assert metrics == json.loads((finished.output("report") / "metrics.json").read_text())
    assert metrics["bits_per_voxel"] == pytest.approx(4 / 64)
    assert 0 < metrics["usage_level_0"] <= 1
    assert 1 <= metrics["perplexity_level_0"] <= 16
    assert metrics["marginal_bits_per_code"] <= 4
    assert metrics["psnr_db"] > 5
    assert metrics["samples"] == 10


def test_histories_are_plots(finished: Layout) -> None:
    with (finished.plots / "vqvae.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert float(rows[-1]["step"]) == 24
    assert float(rows[-1]["mse"]) < float(rows[0]["mse"])


@pytest.mark.parametrize("name", ["sample", "encode"])
def test_again_gives_the_same_bytes(copy_of_finished: Layout, tiny: Params, name: str) -> None:
    folder = copy_of_finished.output({"sample": "samples", "encode": "codes"}[name])
    before = (folder / "MANIFEST.json").read_bytes()
    {"sample": sample, "encode": encode}[name](tiny, copy_of_finished)
    assert (folder / "MANIFEST.json").read_bytes() == before


def test_sample_i_does_not_depend_on_how_many_there_are(
    copy_of_finished: Layout, tiny: Params, finished: Layout
) -> None:
    fewer = tiny.model_copy(update={"sample": tiny.sample.model_copy(update={"count": 3})})
    sample(fewer, copy_of_finished)
    for path in sorted(copy_of_finished.output("samples").glob("sub-*/anat/*.nii.gz")):
        same = finished.output("samples") / path.relative_to(copy_of_finished.output("samples"))
        assert path.read_bytes() == same.read_bytes()


def test_a_new_split_is_not_evaluated_with_the_codes_of_the_old_one(
    copy_of_finished: Layout, tiny: Params
) -> None:
    """Else subjects that were trained on would count as held out."""
    other = tiny.model_copy(update={"seed": 5})
    ingest(other, copy_of_finished)
    with pytest.raises(IntegrityError, match="made with other volumes"):
        evaluate(tiny, copy_of_finished)


def test_fragments_that_a_kill_left_are_not_published(
    copy_of_finished: Layout, tiny: Params, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = (copy_of_finished.output("codes") / "MANIFEST.json").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr("vqmri.codes.store.CodeWriter.finish", stop)
        with pytest.raises(KeyboardInterrupt):
            encode(tiny, copy_of_finished)
    (out,) = copy_of_finished.work.glob("codes-*/out")
    (out / "codes.zarr/level_0/c/0/0/0/0.0123abcd.partial").write_bytes(b"half a shard")
    (out / ".zarr.json.part").write_bytes(b"half")
    (out.parent / "state/.step.part").write_bytes(b"half a checkpoint")
    with monkeypatch.context() as patch:
        patch.setattr("vqmri.codes.store.CodeWriter.finish", stop)
        with pytest.raises(KeyboardInterrupt):
            encode(tiny, copy_of_finished)
    assert not list(out.parent.rglob(".*.part"))
    encode(tiny, copy_of_finished)
    assert (copy_of_finished.output("codes") / "MANIFEST.json").read_bytes() == expected


def stop(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_outputs_that_do_not_belong_together_are_refused(
    copy_of_finished: Layout, tiny: Params
) -> None:
    other = tiny.model_copy(update={"seed": 5})
    train_vqvae(other, copy_of_finished)
    with pytest.raises(IntegrityError, match="VQ-VAE"):
        evaluate(tiny, copy_of_finished)
    with pytest.raises(IntegrityError, match="vqmri encode"):
        train_prior(tiny, copy_of_finished)
    with pytest.raises(IntegrityError, match="train_prior"):
        sample(tiny, copy_of_finished)


def test_two_levels_go_through_the_whole_pipeline(tmp_path: Path) -> None:
    values = tiny_values()
    values["train_vqvae"]["levels"] = [
        {"downsampling": 2, "num_embeddings": 16},
        {"downsampling": 4, "num_embeddings": 300},
    ]
    values["ingest"] |= {"shape": [8, 12, 8], "spacing": [20.0, 20.0, 20.0]}
    values["ingest"]["source"] |= {"count": 8, "spacing": 20.0}
    values["train_prior"]["num_layers"] = 2
    values["sample"]["count"] = 2
    values["study"]["count"] = 2
    params, data = Params.model_validate(values), Layout(tmp_path)
    for stage in (ingest, train_vqvae, encode, train_prior, sample, study, use, evaluate):
        metrics = stage(params, data)
    codes = CodeStore(data.output("codes"))
    assert codes.grids == [(4, 6, 4), (2, 3, 2)]
    assert [level.dtype for level in codes.read([0])] == [np.uint8, np.uint16]
    assert metrics["bits_per_voxel"] == pytest.approx(4 / 8 + np.log2(300) / 64)
    assert {"usage_level_0", "usage_level_1"} <= metrics.keys()
    drawn = CodeStore(data.output("samples")).read([0, 1])
    assert [level.shape for level in drawn] == [(2, 4, 6, 4), (2, 2, 3, 2)]
