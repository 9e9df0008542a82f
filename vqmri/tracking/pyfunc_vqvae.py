"""`vqmri-vqvae` in the MLflow registry: volumes to their reconstructions.

Logged from code; MLflow runs this file when the model is loaded. `unwrap_python_model()` of what it
loads has `encode` and `decode` too.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel


class VQVAEModel(PythonModel):  # type: ignore[misc]
    def load_context(self, context: Any) -> None:
        from vqmri.training.model_folder import load_model
        from vqmri.vqvae import VQVAE

        self._model, _ = load_model(Path(context.artifacts["vqvae"]), VQVAE)

    def encode(self, volumes: np.ndarray) -> list[np.ndarray]:
        """(volume, channel, *space) as ingested to the codes of each map, finest first."""
        with torch.inference_mode():
            codes = self._model.encode(torch.from_numpy(np.asarray(volumes, dtype=np.float32)))
        return [values.numpy() for values in codes]

    def decode(self, codes: Sequence[np.ndarray]) -> np.ndarray:
        """What `encode` gives, back to (volume, channel, *space)."""
        with torch.inference_mode():
            outputs = self._model.decode([torch.from_numpy(values) for values in codes])
            return self._model.to_volumes(outputs).numpy()

    def predict(self, context: Any, model_input: np.ndarray, params: Any = None) -> np.ndarray:
        """(volume, channel, *space) as they were ingested to the same, reconstructed."""
        volumes = torch.from_numpy(np.asarray(model_input, dtype=np.float32))
        with torch.inference_mode():
            return self._model.to_volumes(self._model(volumes).outputs).numpy()


set_model(VQVAEModel())
