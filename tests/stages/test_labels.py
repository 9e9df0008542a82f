"""An image with a second modality and its label map, from NIfTI in to NIfTI out."""

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from tests.conftest import run_stages, tiny_values
from vqmri.layout import Layout
from vqmri.scans.store import VolumeStore

LABELS = [0, 2, 7]


def write_scans(raw: Path, count: int) -> None:
    """Blobs of two kinds; the second modality is the first upside down in intensity."""
    random = np.random.default_rng(0)
    for number in range(count):
        grid = np.indices((16, 16, 16)) - 7.5
        radius = np.sqrt((grid**2).sum(axis=0)) + random.normal(0, 0.3, (16, 16, 16))
        label = np.select([radius < 3, radius < 6], [7, 2], 0).astype(np.int16)
        image = np.select([label == 7, label == 2], [900.0, 500.0], 50.0)
        image += random.normal(0, 20, image.shape)
        for folder, suffix, data in (
            ("t1", "T1w", image), ("t2", "T2w", 1000 - image), ("labels", "T1w", label),
        ):  # fmt: skip
            path = raw / folder / f"sub-{number:02d}_{suffix}.nii.gz"
            path.parent.mkdir(parents=True, exist_ok=True)
            kind = np.int16 if folder == "labels" else np.float32
            nib.Nifti1Image(data.astype(kind), np.diag([2.0, 2.0, 2.0, 1.0])).to_filename(path)


@pytest.fixture(scope="module")
def labelled(tmp_path_factory: pytest.TempPathFactory) -> tuple[Layout, dict[str, float]]:
    root = tmp_path_factory.mktemp("labelled")
    write_scans(root / "data/raw/scans", 6)
    values = tiny_values()
    values["ingest"] = {
        "raw": "data/raw/scans",
        "source": {
            "kind": "nifti", "images": "t1/*.nii.gz", "modalities": {"T2w": "t2/*.nii.gz"},
            "labels": "labels/*.nii.gz", "label_values": LABELS,
        },
        "spacing": [2.0, 2.0, 2.0], "shape": [16, 16, 16], "percentiles": [0.5, 99.5],
        "held_out": 0.34,
    }  # fmt: skip
    values["train_prior"]["conditions"] = []
    values["train_vqvae"] |= {"steps": 200, "learning_rate": 0.005}
    values["sample"]["count"] = 2
    values["study"] = None
    return run_stages(values, root)


def test_the_store_holds_both_modalities_and_the_label_map(
    labelled: tuple[Layout, dict[str, float]],
) -> None:
    store = VolumeStore(labelled[0].output("volumes"))
    assert [channel.name for channel in store.channels] == ["image", "T2w", "dseg"]
    assert store.num_classes == 3
    volume = store.read(store.records[:1])[0]
    assert np.unique(volume[2]).tolist() == [0, 1, 2]
    assert volume[0][volume[2] == 2].mean() > 0.8  # the core is bright in T1w, dark in T2w
    assert volume[1][volume[2] == 2].mean() < 0.3


def test_label_maps_are_reconstructed_and_measured(
    labelled: tuple[Layout, dict[str, float]],
) -> None:
    metrics = labelled[1]
    assert metrics["label_accuracy"] > 0.85  # more than the background, which is 78 %
    assert 0 <= metrics["label_dice"] <= 1
    assert "psnr_db" in metrics


def test_samples_are_written_channel_by_channel_and_labels_as_integers(
    labelled: tuple[Layout, dict[str, float]],
) -> None:
    folder = labelled[0].output("samples")
    names = sorted(p.name for p in folder.glob("sub-synthetic00000/anat/*.nii.gz"))
    assert [name.split("_")[-1] for name in names] == ["T1w.nii.gz", "T2w.nii.gz", "dseg.nii.gz"]
    label = nib.load(folder / "sub-synthetic00000/anat" / names[2])
    assert isinstance(label, nib.Nifti1Image)
    assert label.get_data_dtype().kind in "iu"
    assert set(np.unique(np.asarray(label.dataobj))) <= set(LABELS)
