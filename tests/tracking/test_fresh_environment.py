"""A champion in an environment that has only what the model itself asks for."""

import os
import subprocess
import sys
from pathlib import Path

import mlflow
import numpy as np
import pytest

from vqmri.layout import Layout
from vqmri.prior.choice import Choice
from vqmri.tracking.mlflow import register, tracked
from vqmri.training.generator import Generator

MODEL = "models:/vqmri-generator@champion"
DRAW = f"""
import sys
from importlib.util import find_spec
assert not any(find_spec(name) for name in ("vqmri", "prefect", "dvc", "monai", "nibabel"))
import mlflow, numpy as np, pandas as pd
mlflow.set_tracking_uri(sys.argv[1])
generator = mlflow.pyfunc.load_model("{MODEL}")
np.save("drawn.npy", generator.predict(pd.DataFrame({{"seed": [0, 0], "number": [3, 0]}})))
"""


# MLflow's own, at registration: the signature is given, and an example would mean drawing samples
@pytest.mark.filterwarnings("ignore:.*type hint:UserWarning")
@pytest.mark.filterwarnings("ignore:.*input example was not provided:UserWarning")
@pytest.mark.services
@pytest.mark.long
@pytest.mark.timeout(1800)
def test_a_champion_draws_where_only_its_requirements_are(
    finished: Layout, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    folders = {name: finished.output(name) for name in ("vqvae", "prior")}
    with tracked("train_prior", tmp_path):
        number = register("vqmri-generator", folders)
    mlflow.MlflowClient().set_registered_model_alias("vqmri-generator", "champion", str(number))
    needed = mlflow.pyfunc.get_model_dependencies(MODEL)

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    python = str(elsewhere / ".venv/bin/python")
    uri = f"sqlite:///{tmp_path / 'mlruns' / 'mlflow.db'}"
    hidden = ("PYTHON", "VIRTUAL_ENV", "MLFLOW_")
    shell = {name: value for name, value in os.environ.items() if not name.startswith(hidden)}
    shell |= {"MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false", "DO_NOT_TRACK": "true"}
    for command in (
        [sys.executable, "-m", "venv", str(elsewhere / ".venv")],
        [python, "-m", "pip", "install", "--quiet", "--requirement", needed],
        [python, "-W", "ignore", "-c", DRAW, uri],
    ):
        done = subprocess.run(
            command, cwd=elsewhere, env=shell, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
    drawn = Generator(folders["vqvae"], folders["prior"]).sample(0, [3, 0], Choice())
    assert (np.load(elsewhere / "drawn.npy") == drawn).all()
