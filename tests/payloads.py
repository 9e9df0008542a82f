"""Harmless payloads: run, they make a file in a folder of the test's, and do nothing else."""

import io
import pickle
from pathlib import Path
from typing import Any

import torch


class Touch:
    """Unpickled, it makes the file `canary`."""

    def __init__(self, canary: Path) -> None:
        self._canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self._canary,)


def pickled(canary: Path) -> bytes:
    return pickle.dumps(Touch(canary))


def torch_saved(canary: Path) -> bytes:
    file = io.BytesIO()
    torch.save({"conv1.weight": Touch(canary)}, file)
    return file.getvalue()


PICKLES = {"pickle": pickled, "torch": torch_saved}


def tree(folder: Path) -> set[str]:
    """Every path below a folder."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*")}
