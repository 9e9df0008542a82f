"""The benchmark of ingest on scans made here, and the sums in it."""

import json
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from benchmarks import ingest as benchmark
from benchmarks.ingest import DataSet
from vqmri.layout import Layout
from vqmri.scans.store import VolumeStore
from vqmri.stages.ingest import ingest

pytestmark = pytest.mark.filterwarnings("ignore:NvImgCodec")  # of MONAI's readers, which it lacks
SMALL = DataSet("set", "*.nii.gz", 2.0, (16, 16, 16))


@pytest.fixture
def data(tmp_path: Path) -> Path:
    (tmp_path / "set").mkdir()
    for number in range(10):
        voxels = np.random.default_rng(number).gamma(2, 50, (15, 18, 14)).astype(np.float32)
        image: Any = nib.Nifti1Image(voxels, np.diag([-1.5, 2, 2, 1]))
        nib.save(image, tmp_path / f"set/{number}.nii.gz")
    return tmp_path


def test_the_bare_transforms_make_what_ingest_makes(data: Path, tmp_path: Path) -> None:
    """Else their times would not compare."""
    ingest(SMALL.params(data), Layout(tmp_path / "own"))
    store = VolumeStore(Layout(tmp_path / "own").output("volumes"))
    own = store.read(store.records)
    for volume, path in zip(own, SMALL.paths(data), strict=True):
        assert np.allclose(volume, np.asarray(SMALL.transforms()(str(path))), atol=1e-5)


def test_its_last_line_has_the_figures(
    data: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(benchmark, "DATA_SETS", (SMALL,))
    monkeypatch.setattr("sys.argv", ["ingest", "--data", str(data), "--rounds", "1"])
    benchmark.main()
    said = capsys.readouterr().out.splitlines()
    last = json.loads(said[-1])
    assert set(last) == {
        "ratio_bare", "ratio_peer", "ratio_floor", "scaling_2_workers", "reingest_seconds",
    }  # fmt: skip
    assert all(value > 0 for value in last.values())
    times = {line.split()[0]: float(line.split()[1]) for line in said if line.startswith("  ms_")}
    assert last["ratio_bare"] == pytest.approx(times["ms_ingest"] / times["ms_bare"], rel=0.01)
    assert last["ratio_peer"] == pytest.approx(times["ms_peer"] / times["ms_ingest"], rel=0.01)
    assert times["ms_reingest"] < times["ms_ingest"]
