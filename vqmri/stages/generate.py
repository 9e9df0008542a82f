"""A registered generator → synthetic scans, without the project that it was trained in."""

from pathlib import Path
from typing import Any

from vqmri.errors import InputError, ParamsError
from vqmri.layout import Layout
from vqmri.outputs.manifest import MANIFEST
from vqmri.outputs.rehearsal import rehearsing
from vqmri.params import Sample
from vqmri.protocols import Map, Metrics
from vqmri.stages.sample import may_replace, publish_samples
from vqmri.stages.start import as_told
from vqmri.tracking import registry

_FOLDERS = ("vqvae", "prior")


def rehearse(model: str, settings: Sample, out: Path, root: Path) -> dict[str, Any]:
    """What `generate` would write; the model is fetched and checked. Raises what that raises."""
    with rehearsing() as start:
        generate(model, settings, out, root)
    told = as_told(start, Layout(root), raw="")
    return told | {"stage": "generate", "reads": {"model": model}}


def generate(model: str, settings: Sample, out: Path, root: Path, *, each: Map = map) -> Metrics:
    """Publish `out`, as `vqmri sample` would with the same settings and models.

    The model's own code is not run: its two folders are read as data, and every byte is checked.

    model: `models:/NAME@ALIAS`, `models:/NAME/VERSION`, or a folder that holds such a model
    root: the registry is that of MLFLOW_TRACKING_URI, or else of mlruns/ in this folder

    Raises InputError when there is no such model, ParamsError for covariates that it does not know
    or an `out` that is not to be replaced, IntegrityError for changed files, OSError when the
    registry does not answer.
    """
    if Path.cwd().is_relative_to(out.resolve()):
        raise ParamsError(
            f"--out {out}: the current folder would be replaced. Name another, as `--out scans`."
        )
    out = out.resolve()
    may_replace(out)
    with registry.fetched(model, root) as folder:
        vqvae, prior = (folder / "artifacts" / name for name in _FOLDERS)
        for part in (vqvae, prior):
            if not (part / MANIFEST).is_file():
                raise InputError(
                    f"{model} is no vqmri-generator: it has no artifacts/{part.name}/{MANIFEST}. "
                    "Models of that name are registered by `vqmri train_prior`."
                )
        return publish_samples(settings, vqvae, prior, out, each)
