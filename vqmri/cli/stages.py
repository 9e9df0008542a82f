"""A command for each stage."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from vqmri.cli.group import main
from vqmri.cli.options import dry_run, given, how_to_draw, prints
from vqmri.stages import STAGES

_HELP = {
    "ingest": "Find, check and normalise scans: data/volumes.",
    "train_vqvae": "Train the autoencoder: data/vqvae.",
    "encode": "Encode all volumes: data/codes.",
    "train_prior": "Train the prior over the codes: data/prior.",
    "study": "Measure whether the prior is needed: data/study.",
    "use": "Measure whether one can learn from the samples: data/use.",
    "evaluate": "Measure, and write the report: data/report.",
}


def _run(name: str, rehearsal: bool, **options: Any) -> Mapping[str, Any]:
    from vqmri.stages.run import rehearse, run

    return (rehearse if rehearsal else run)(name, Path.cwd(), **options)


def _stage(name: str) -> Callable[..., None]:
    @dry_run
    @prints
    def command(dry_run: bool) -> Mapping[str, Any]:
        return _run(name, dry_run)

    return command


for _name in STAGES:
    if _name not in ("ingest", "sample"):  # those with options
        main.command(_name, help=_HELP[_name])(_stage(_name))


@main.command(help=_HELP["ingest"])
@click.option(
    "--workers",
    type=click.IntRange(1),
    help="Processes; left out, one a core, at most 8, if there is enough to do.",
)
@dry_run
@prints
def ingest(workers: int | None, dry_run: bool) -> Mapping[str, Any]:
    """Run the stage on as many processes as are asked for."""
    if workers is None or dry_run:
        return _run("ingest", dry_run)
    from vqmri.stages.workers import processes

    return _run("ingest", dry_run, each=map if workers == 1 else processes(workers))


@main.command()
@how_to_draw
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder to write in place of data/samples; needed with any other option.",
)
@dry_run
@prints
def sample(out: Path | None, dry_run: bool, **options: object) -> Mapping[str, Any]:
    """Draw synthetic scans: data/samples, or what the options ask for in --out."""
    return _run("sample", dry_run, changes=given(options), out=out)
