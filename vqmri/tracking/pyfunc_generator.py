"""`vqmri-generator` in the MLflow registry: seeds and numbers to synthetic volumes.

Logged from code; MLflow runs this file when the model is loaded.
"""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel


class GeneratorModel(PythonModel):  # type: ignore[misc]
    def load_context(self, context: Any) -> None:
        from vqmri.training.generator import Generator

        folders = context.artifacts
        self._generator = Generator(Path(folders["vqvae"]), Path(folders["prior"]))

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> np.ndarray:
        """One row per sample, columns `seed` and `number`, to (row, channel, *space) in [0, 1]."""
        rows = model_input.reset_index(drop=True)
        volumes: dict[int, np.ndarray] = {}
        for seed, group in rows.groupby("seed"):
            drawn = self._generator.sample(int(str(seed)), [int(n) for n in group["number"]], 1.0)
            volumes |= dict(zip(group.index, drawn, strict=True))
        return np.stack([volumes[row] for row in rows.index])


set_model(GeneratorModel())
