"""A trained model as a folder that loads without params.yaml.

    model.json           kind, constructor's arguments, and what the model is about
    weights.safetensors  its state
    history.json         its training: a list of rows, for plots

The folder is enough: the registry's models hold a copy of it and of this library.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from vqmri.errors import IntegrityError
from vqmri.outputs import Manifest, sha256_of
from vqmri.outputs.reading import understood

FORMAT_VERSION = 1
DESCRIPTION, WEIGHTS = "model.json", "weights.safetensors"
HISTORY = "history.json"
REMEDY = "Make it again with `dvc repro`."
UNFIT = (
    ArithmeticError, AssertionError, AttributeError, LookupError, RuntimeError, SafetensorError,
    TypeError, ValueError,
)  # fmt: skip
"""What comes of arguments or weights that are not those of the model."""

Model = TypeVar("Model", bound=nn.Module)


def write_model(
    folder: Path, model: nn.Module, arguments: Mapping[str, Any], about: Mapping[str, Any]
) -> None:
    """Write a model that was built as `type(model)(**arguments)`.

    about: what a user of the model must know, as plain JSON: geometry of its volumes and the like;
        `weights`, the sha256 of the weights, is added and identifies the model
    """
    state = {name: value.cpu().contiguous() for name, value in model.state_dict().items()}
    save_file(state, folder / WEIGHTS)
    description = {
        "format_version": FORMAT_VERSION,
        "kind": type(model).__name__,
        "arguments": dict(arguments),
        "about": {**about, "weights": sha256_of(folder / WEIGHTS)},
    }
    text = json.dumps(description, indent=1, sort_keys=True)
    (folder / DESCRIPTION).write_text(text + "\n", encoding="utf-8")


def load_model(folder: Path, kind: type[Model]) -> tuple[Model, dict[str, Any]]:
    """The model of class `kind` in evaluation mode, and its `about`.

    InputError when the folder holds none, IntegrityError when its bytes are not those published
    or when it is a model of another kind or of another version of this library.
    """
    manifest = Manifest.read(folder)
    manifest.check(folder, [DESCRIPTION, WEIGHTS])
    with understood(folder / DESCRIPTION, REMEDY):
        description = json.loads((folder / DESCRIPTION).read_text(encoding="utf-8"))
        found = (description["kind"], description["format_version"])
        arguments, about = dict(description["arguments"]), dict(description["about"])
        named = about["weights"]
    if found != (kind.__name__, FORMAT_VERSION):
        raise IntegrityError(
            f"{folder} holds {found}, expected {(kind.__name__, FORMAT_VERSION)}. {REMEDY}"
        )
    if named != manifest.items[WEIGHTS]:
        raise IntegrityError(f"{folder / DESCRIPTION} is not about these weights. {REMEDY}")
    return _filled(folder, kind, arguments).eval(), about


def _filled(folder: Path, kind: type[Model], arguments: dict[str, Any]) -> Model:
    """A model with the folder's weights; IntegrityError when it is not what these are of."""
    try:
        with safe_open(folder / WEIGHTS, framework="pt") as file:
            sizes = {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
        with torch.device("meta"):  # no memory is taken yet, whatever the arguments say
            planned = kind(**arguments).state_dict()
        if sizes != {name: list(value.shape) for name, value in planned.items()}:
            raise ValueError("the weights are of a model with other arguments")
        model = kind(**arguments)
        model.load_state_dict(load_file(folder / WEIGHTS))
    except UNFIT as error:  # other arguments, or other weights
        raise IntegrityError(
            f"{folder} was made by another version of vqmri ({error}). {REMEDY}"
        ) from error
    return model
