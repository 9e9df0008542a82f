"""Commands that use trained models, or hand them out."""

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from importlib import import_module
from pathlib import Path
from typing import Any

import click

from vqmri.cli.group import main
from vqmri.cli.options import (
    FILE,
    complete_model,
    dry_run,
    given,
    how_to_draw,
    mask,
    of_whom,
    prints,
)


@main.command()
@click.option(
    "--model",
    required=True,
    shell_complete=complete_model,
    help="As models:/vqmri-generator@champion, in the registry of MLFLOW_TRACKING_URI or, without "
    "that, of the project in the current folder; or a folder with such a model.",
)
@how_to_draw
@click.option("--residual", is_flag=True, help="Add what codes leave out, as noise like it.")
@click.option("--suffix", help="BIDS suffix of the scans; left out, T1w.")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="Folder to write.",
)
@dry_run
@prints
def generate(model: str, out: Path, dry_run: bool, **options: object) -> Mapping[str, Any]:
    """Draw synthetic scans from a registered model; no project is needed.

    With the settings of a project's `sample:` the scans are those of its data/samples.
    """
    from vqmri.params import sample_settings

    settings = sample_settings({"count": 1, "seed": 0, "temperature": 1.0} | given(options))

    from vqmri.stages import generate as stage

    draw = stage.rehearse if dry_run else stage.generate
    return draw(model, settings, out, Path.cwd())


def _of_scan(name: str, scan: Path, options: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the module of this name finds of a scan; params are checked before torch is imported."""
    from vqmri.layout import Layout
    from vqmri.params import PARAMS, Params

    params = Params.load(Path(PARAMS))
    look: Callable[..., Mapping[str, Any]] = getattr(import_module(f"vqmri.stages.{name}"), name)
    return look(params, Layout(Path.cwd()), scan, **options)


def _beside(name: str, what: str) -> Callable[..., Any]:
    """The option that names another file than the one beside the scan's name."""
    return click.option(
        "--out",
        type=click.Path(dir_okay=False, path_type=Path),
        help=f"{what} in .nii.gz, in place of {name} in the current folder.",
    )


@main.command()
@click.argument("scan", type=FILE)
@mask
@_beside("SCAN_reconstruction.nii.gz", "What it becomes,")
@prints
def reconstruct(scan: Path, **options: Any) -> Mapping[str, Any]:
    """Encode SCAN, a NIfTI file, decode it, and write it back onto its own grid.

    Intensities are in the scan's own units. A JSON file beside it says what was done to the scan,
    how close the reconstruction is and what its codes cost.
    """
    return _of_scan("reconstruct", scan, options)


@main.command()
@click.argument("scan", type=FILE)
@of_whom
@mask
@_beside("SCAN_bits.nii.gz", "The map,")
@prints
def score(scan: Path, **options: Any) -> Mapping[str, Any]:
    """Say how unusual SCAN, a NIfTI file, is under the published models, and map where.

    Prints its exact −log2 p in bits. The map spreads the bits of each code over its voxels, and
    their sum is the total. Each code is judged given the coarser codes and those before it in
    raster order, so a surprise stands where it is first met.
    """
    return _of_scan("score", scan, options)


@main.command()
@dry_run
@prints
def register(dry_run: bool) -> Mapping[str, Any]:
    """Put the models of data/ into the MLflow registry, where they are challengers.

    Trainings do this by themselves; it is for models that came by `dvc pull`.
    """
    from vqmri.layout import Layout
    from vqmri.stages.promote import register as into_registry

    return _meant(dry_run, lambda: into_registry(Layout(Path.cwd()), Path.cwd()))


@main.command()
@dry_run
@prints
def promote(dry_run: bool) -> Mapping[str, Any]:
    """Make the registered models of data/ champion, if they are good enough.

    The report's figures must pass every gate of params.yaml (evaluate: gates:), and none of these
    be worse than the present champion's, which is then called `previous`.
    """
    from vqmri.params import PARAMS, Params

    params = Params.load(Path(PARAMS))

    from vqmri.evaluation.gates import Gate
    from vqmri.layout import Layout
    from vqmri.stages.promote import promote as to_champion

    gates = [Gate(name, gate.least, gate.most) for name, gate in params.evaluate.gates.items()]
    return _meant(dry_run, lambda: to_champion(Layout(Path.cwd()), Path.cwd(), gates))


def _meant(dry_run: bool, act: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What was done, or with --dry-run would be."""
    from vqmri.outputs.rehearsal import rehearsing

    with rehearsing() if dry_run else nullcontext():
        return act()
