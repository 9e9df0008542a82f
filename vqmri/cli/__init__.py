"""The command `vqmri`."""

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from vqmri.errors import INTERRUPTED, STORAGE, VqmriError
from vqmri.stages import STAGES

PRESETS = Path(__file__).parent.parent / "presets"


class Commands(click.Group):
    """A group that turns expected errors into their message and exit code."""

    def invoke(self, context: click.Context) -> object:
        try:
            return super().invoke(context)
        except VqmriError as error:
            click.echo(f"vqmri: {error}", err=True)
            sys.exit(error.exit_code)
        except KeyboardInterrupt:
            click.echo("vqmri: interrupted. The same command goes on from here.", err=True)
            sys.exit(INTERRUPTED)
        except OSError as error:
            click.echo(f"vqmri: {error}. Nothing that was published is lost.", err=True)
            sys.exit(STORAGE)


@click.group(cls=Commands)
@click.version_option(package_name="vqmri")
def main() -> None:
    """Synthetic MRI scans by VQ-VAE and PixelCNN.

    Stages, in order: ingest, train_vqvae, encode, train_prior, sample, study, use, evaluate. Each
    reads params.yaml in the current folder and publishes below data/. `dvc repro` runs what must
    run.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: KeyboardInterrupt
    if click.get_current_context().invoked_subcommand != "doctor":  # it looks at what is set
        os.environ.setdefault("DO_NOT_TRACK", "true")


def _stage(name: str) -> Callable[[], None]:
    def command() -> None:
        from vqmri.stages.run import run

        click.echo(json.dumps(run(name, Path.cwd()), sort_keys=True))

    return command


_HELP = {
    "ingest": "Find, check and normalise scans: data/volumes.",
    "train_vqvae": "Train the autoencoder: data/vqvae.",
    "encode": "Encode all volumes: data/codes.",
    "train_prior": "Train the prior over the codes: data/prior.",
    "study": "Measure whether the prior is needed: data/study.",
    "use": "Measure whether one can learn from the samples: data/use.",
    "evaluate": "Measure, and write the report: data/report.",
}
for _name in STAGES:
    if _name not in ("ingest", "sample"):  # those with options
        main.command(_name, help=_HELP[_name])(_stage(_name))


@main.command(help=_HELP["ingest"])
@click.option(
    "--workers",
    type=click.IntRange(1),
    help="Processes; left out, as many as the machine has cores if there is enough to do.",
)
def ingest(workers: int | None) -> None:
    """Run the stage on as many processes as are asked for."""
    from vqmri.stages.run import run

    each = None
    if workers is not None:
        from vqmri.stages.workers import processes

        each = map if workers == 1 else processes(workers)
    click.echo(json.dumps(run("ingest", Path.cwd(), each=each), sort_keys=True))


def _covariates(
    context: click.Context, option: click.Parameter, pairs: tuple[str, ...]
) -> dict[str, object]:
    """NAME=VALUE, or NAME=VALUE,VALUE for a list that the samples go through."""
    found: dict[str, object] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not (name and equals and value):
            raise click.BadParameter(f"{pair!r} is not NAME=VALUE")
        values = [_number(part) for part in value.split(",")]
        found[name] = values if len(values) > 1 else values[0]
    return found


def _number(text: str) -> str | int | float:
    """As params.yaml would read it, so that both doors ask for the same."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            pass
    return text


def _of_whom(command: Callable[..., None]) -> Callable[..., None]:
    """The options that say whose scan it is."""
    covariates = click.option(
        "--covariate",
        "covariates",
        multiple=True,
        metavar="NAME=VALUE",
        callback=_covariates,
        help="Of the subject, as sex=F; may be repeated. What is not named is left open.",
    )
    extrapolate = click.option(
        "--extrapolate",
        is_flag=True,
        help="Allow a covariate outside the range of the training subjects.",
    )
    return covariates(extrapolate(command))


def _how_to_draw(command: Callable[..., None]) -> Callable[..., None]:
    """The options of a draw."""
    for option in (
        click.option("--guidance", type=float, help="Above 1, follow the covariates more."),
        click.option(
            "--top-p", type=float, help="Draw from the fewest codes of this probability only."
        ),
        click.option("--top-k", type=int, help="Draw from so many of the likeliest codes only."),
        click.option("--temperature", type=float, help="Divides the logits before each draw."),
        click.option("--seed", type=int, help="With a sample's number it decides that sample."),
        click.option("--count", type=int, help="Number of samples."),
    ):
        command = option(command)
    return _of_whom(command)


def _given(options: dict[str, object]) -> dict[str, object]:
    """The options that were given: a flag that is off was not, and 0 is a value."""
    return {n: v for n, v in options.items() if v not in (None, {}) and v is not False}


@main.command()
@_how_to_draw
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    help="Folder to write in place of data/samples; needed with any other option.",
)
def sample(out: Path | None, **options: object) -> None:
    """Draw synthetic scans: data/samples, or what the options ask for in --out."""
    from vqmri.stages.run import run

    metrics = run("sample", Path.cwd(), changes=_given(options), out=out)
    click.echo(json.dumps(metrics, sort_keys=True))


@main.command()
@click.option(
    "--model",
    required=True,
    help="As models:/vqmri-generator@champion, in the registry of MLFLOW_TRACKING_URI or, without "
    "that, of the project in the current folder; or a folder with such a model.",
)
@_how_to_draw
@click.option("--residual", is_flag=True, help="Add what codes leave out, as noise like it.")
@click.option("--suffix", help="BIDS suffix of the scans; left out, T1w.")
@click.option(
    "--out",
    type=click.Path(file_okay=False, path_type=Path),
    required=True,
    help="Folder to write.",
)
def generate(model: str, out: Path, **options: object) -> None:
    """Draw synthetic scans from a registered model; no project is needed.

    With the settings of a project's `sample:` the scans are those of its data/samples.
    """
    from vqmri.params import sample_settings

    settings = sample_settings({"count": 1, "seed": 0, "temperature": 1.0} | _given(options))

    from vqmri.stages.generate import generate as from_model

    click.echo(json.dumps(from_model(model, settings, out, Path.cwd()), sort_keys=True))


_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_mask = click.option("--mask", type=_FILE, help="Its brain mask, if this project's scans have one.")


@main.command()
@click.argument("scan", type=_FILE)
@_mask
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="In .nii.gz, in place of SCAN_reconstruction.nii.gz in the current folder.",
)
def reconstruct(scan: Path, **options: Any) -> None:
    """Encode SCAN, a NIfTI file, decode it, and write it back onto its own grid.

    Intensities are in the scan's own units. A JSON file beside it says what was done to the scan,
    how close the reconstruction is and what its codes cost.
    """
    from vqmri.params import PARAMS, Params

    params = Params.load(Path(PARAMS))

    from vqmri.layout import Layout
    from vqmri.stages.reconstruct import reconstruct as of

    click.echo(json.dumps(of(params, Layout(Path.cwd()), scan, **options), sort_keys=True))


@main.command()
@click.argument("scan", type=_FILE)
@_of_whom
@_mask
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Map to write, in .nii.gz, in place of SCAN_bits.nii.gz in the current folder.",
)
def score(scan: Path, **options: Any) -> None:
    """Say how unusual SCAN, a NIfTI file, is under the published models, and map where.

    Prints its exact −log2 p in bits. The map spreads the bits of each code over its voxels, and
    their sum is the total. Each code is judged given the coarser codes and those before it in
    raster order, so a surprise stands where it is first met.
    """
    from vqmri.params import PARAMS, Params

    params = Params.load(Path(PARAMS))

    from vqmri.layout import Layout
    from vqmri.stages.score import score as of

    click.echo(json.dumps(of(params, Layout(Path.cwd()), scan, **options), sort_keys=True))


@main.command()
def register() -> None:
    """Put the models of data/ into the MLflow registry, where they are challengers.

    Trainings do this by themselves; it is for models that came by `dvc pull`.
    """
    from vqmri.layout import Layout
    from vqmri.stages.promote import register as into_registry

    click.echo(json.dumps(into_registry(Layout(Path.cwd()), Path.cwd()), sort_keys=True))


@main.command()
def promote() -> None:
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
    click.echo(json.dumps(to_champion(Layout(Path.cwd()), Path.cwd(), gates), sort_keys=True))


@main.command()
@click.option("--preset", required=True, help="One of the files in presets/, without .yaml.")
@click.option("--raw", help="Folder of your raw scans, in place of the preset's.")
def init(preset: str, raw: str | None) -> None:
    """Write params.yaml from a preset."""
    import yaml

    from vqmri.outputs import replace_file
    from vqmri.params import PARAMS, Params

    source = PRESETS / f"{preset}.yaml"
    if not source.is_file():
        names = ", ".join(sorted(path.stem for path in PRESETS.glob("*.yaml")))
        raise click.BadParameter(f"no preset is called {preset!r}; there are: {names}")
    text = source.read_text(encoding="utf-8")
    if raw:
        before = yaml.safe_load(text)["ingest"]["raw"]
        text = text.replace(f"raw: {before}", f"raw: {json.dumps(raw)}", 1)
    kept = ""
    if Path(PARAMS).is_file():
        replace_file(Path(f"{PARAMS}.old"), Path(PARAMS).read_bytes())
        kept = f"; what it was is in {PARAMS}.old"
    replace_file(Path(PARAMS), text.encode())
    Params.load(Path(PARAMS))
    click.echo(f"{PARAMS} is now the preset {preset}{kept}.")


@main.command()
@click.option("--spacing", type=click.FloatRange(0, min_open=True), help="Voxel size in mm.")
@click.option(
    "--memory",
    type=click.FloatRange(0, min_open=True),
    help="GiB to stay within, in place of 90 % of the device's.",
)
@click.option("--dry-run", is_flag=True, help="Say what is proposed and write nothing.")
def plan(spacing: float | None, memory: float | None, dry_run: bool) -> None:
    """Write a params.yaml that suits the scans of data/volumes and this device.

    It proposes spacing, shape, levels, codebooks, batches and the prior's size, and predicts memory
    and time. Without --spacing the scans' own is taken, or a coarser one where that does not fit.
    The volumes may be of any spacing; scans, seed, samples and evaluation stay as they are.
    """
    from vqmri.params import PARAMS, Params

    params = Params.load(Path(PARAMS))

    from vqmri.layout import Layout
    from vqmri.stages import plan as planning

    found = planning.plan(params, Layout(Path.cwd()), spacing=spacing, memory=memory)
    click.echo(planning.as_text(found))
    if not dry_run:
        click.echo(planning.write(found, Path.cwd()))


@main.command()
@click.argument("path", type=click.Path(exists=True, file_okay=False, path_type=Path))
def verify(path: Path) -> None:
    """Check every byte of a published output against its MANIFEST.json."""
    from vqmri.outputs import verify as check

    manifest = check(path)
    click.echo(f"{path}: {len(manifest.items)} items are as they were published.")


@main.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array.")
def doctor(as_json: bool) -> None:
    """Say whether this machine and the servers it is told of are fit; exit code 2 if not."""
    from vqmri.layout import Layout
    from vqmri.stages import doctor as of

    checks = of.doctor(Layout(Path.cwd()))
    click.echo(of.as_json(checks) if as_json else of.as_text(checks))
    if any(check.verdict == "error" for check in checks):
        sys.exit(2)


@main.command()
def clean() -> None:
    """Remove unpublished work of killed or abandoned stages."""
    from vqmri.layout import Layout
    from vqmri.outputs.publish import clean as remove

    for path in remove(Layout(Path.cwd()).work):
        click.echo(f"removed {path}")
