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
        from vqmri.prior.choice import Choice
        from vqmri.training.generator import Generator

        folders = context.artifacts
        self._generator = Generator(Path(folders["vqvae"]), Path(folders["prior"]))
        self._choice = Choice()

    def predict(self, context: Any, model_input: pd.DataFrame, params: Any = None) -> np.ndarray:
        """One row per sample to (row, channel, *space) as ingested.

        Columns `seed` and `number`; any other is a covariate, and may be missing in some rows.
        """
        rows = model_input.reset_index(drop=True)
        names = [name for name in rows.columns if name not in ("seed", "number")]
        volumes: dict[int, np.ndarray] = {}
        for _, group in rows.groupby(["seed", *names], dropna=False):
            seed, first = group["seed"].iloc[0], group.iloc[0]
            known = {name: first[name] for name in names if pd.notna(first[name])}
            numbers = [int(n) for n in group["number"]]
            drawn = self._generator.sample(int(str(seed)), numbers, self._choice, known)
            volumes |= dict(zip(group.index, drawn, strict=True))
        return np.stack([volumes[row] for row in rows.index])


set_model(GeneratorModel())
