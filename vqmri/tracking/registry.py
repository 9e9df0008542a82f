"""The registry's versions: whose weights they hold, what they measured, and which is champion.

Everything but `answering` is called inside it.
"""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from vqmri.errors import InputError
from vqmri.tracking.address import shown
from vqmri.tracking.mlflow import connect, need_experiment, register, weights_tags

# isort: split
# After that module, which sets MLflow's environment before it imports it.
import mlflow
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

CHAMPION = "champion"
PREVIOUS = "previous"
_MEASURED = "measured"  # a tag; registries of older servers cut tags at 5000 characters


@contextmanager
def answering(root: Path) -> Iterator[None]:
    """The registry of the project in `root`; OSError when it does not answer."""
    try:
        connect(root)
        yield
    except (MlflowException, SQLAlchemyError) as error:
        raise OSError(
            f"the registry of models refuses or does not answer ({shown(error)}). It is the one "
            "that MLFLOW_TRACKING_URI names, or else mlruns/ of the project. When it answers, run "
            "the same command again: it does what is left to do"
        ) from error


def is_there(root: Path) -> bool:
    """Whether a server is named, or the project in `root` has a registry of its own."""
    return "MLFLOW_TRACKING_URI" in os.environ or (root / "mlruns" / "mlflow.db").is_file()


@contextmanager
def fetched(model: str, root: Path) -> Iterator[Path]:
    """The files of a registered model, for the time of the block; none of its code is run.

    model: `models:/NAME@ALIAS`, `models:/NAME/VERSION`, or a folder that holds one
    Raises InputError when there is no such registry or model, OSError as `answering`.
    """
    if not model.startswith("models:/"):
        if not Path(model).is_dir():
            raise InputError(
                f"--model {model}: no such folder. Give one, or a registered model as "
                "models:/vqmri-generator@champion."
            )
        yield Path(model)
        return
    if not is_there(root):
        raise InputError(
            f"--model {model}: there is no registry. Name its server in MLFLOW_TRACKING_URI, or "
            "run this in the project that has registered the model."
        )
    with TemporaryDirectory(prefix="vqmri-model-") as place:
        with answering(root):
            folder = _download(model, place)
        yield folder


def _download(model: str, place: str) -> Path:
    try:
        return Path(mlflow.artifacts.download_artifacts(model, dst_path=place))
    except MlflowException as error:
        if error.get_http_status_code() in (400, 404):  # it answers, and does not know it
            raise InputError(
                f"--model {model}: the registry at {shown(mlflow.get_tracking_uri())} has no "
                f"such model ({shown(error.message)}). A version is champion after `vqmri promote`."
            ) from error
        raise


def versions_with(name: str, folders: Mapping[str, Path]) -> list[int]:
    """Versions of the model `name` that hold exactly the weights of these folders; newest first."""
    where = [f"name = '{name}'"]
    where += [f"tags.{tag} = '{value}'" for tag, value in weights_tags(folders).items()]
    found = mlflow.MlflowClient().search_model_versions(
        " and ".join(where), order_by=["version_number DESC"]
    )
    return [int(version.version) for version in found]


def add(name: str, folders: Mapping[str, Path], root: Path) -> int:
    """Register the folders as a new version, the challenger, in a run of its own."""
    need_experiment(root)
    with mlflow.start_run(run_name="register"):
        return register(name, folders)


def champion_of(name: str) -> int | None:
    """The champion's version, if the registered model `name` has one."""
    version = mlflow.MlflowClient().get_registered_model(name).aliases.get(CHAMPION)
    return None if version is None else int(version)


def make_champion(name: str, version: int) -> int | None:
    """Move the alias to `version`; what was champion before is `previous` now, and is returned."""
    former = champion_of(name)
    client = mlflow.MlflowClient()
    if former is not None:  # first: cut off in between, the former champion is still champion
        client.set_registered_model_alias(name, PREVIOUS, str(former))
    client.set_registered_model_alias(name, CHAMPION, str(version))
    return former


def measured(name: str, version: int) -> dict[str, Any]:
    """What `note_measured` noted; empty when nothing was."""
    tags = mlflow.MlflowClient().get_model_version(name, str(version)).tags
    return json.loads(tags.get(_MEASURED, "{}"))


def note_measured(name: str, version: int, values: Mapping[str, Any]) -> None:
    """Note plain values at a version, in place of those noted before."""
    text = json.dumps(dict(values), sort_keys=True)
    mlflow.MlflowClient().set_model_version_tag(name, str(version), _MEASURED, text)
