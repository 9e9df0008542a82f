"""Commands that set a project up, look at it and tidy it."""

import difflib
import json
from contextlib import nullcontext
from pathlib import Path

import click

from vqmri import terminal
from vqmri.cli.group import main
from vqmri.cli.options import (
    PRESETS,
    Found,
    complete_preset,
    dry_run,
    presets,
    prints,
    sentence,
)


@main.command()
@click.option(
    "--preset",
    required=True,
    shell_complete=complete_preset,
    help="phantom, mnist, hippocampus, …; a wrong name lists them.",
)
@click.option("--raw", help="Folder of your raw scans, in place of the preset's.")
@prints
def init(preset: str, raw: str | None) -> Found:
    """Write params.yaml from a preset."""
    import yaml

    from vqmri.params import PARAMS
    from vqmri.params.writing import write_params

    if preset not in presets():
        near = difflib.get_close_matches(preset, presets(), 1)
        meant = f" Did you mean {near[0]}?" if near else ""
        raise click.BadParameter(
            f"no preset is called {preset!r}.{meant} There are: {', '.join(presets())}"
        )
    text = (PRESETS / f"{preset}.yaml").read_text(encoding="utf-8")
    if raw:
        ingest = yaml.safe_load(text)["ingest"]
        if ingest.get("source", {}).get("kind") == "phantom":
            raise click.BadParameter(
                f"--raw {raw}: the preset {preset} makes its own scans and reads none. Take a "
                "preset that reads scans, as --preset brain-2mm."
            )
        # YAML takes no escaped pair for an emoji; a name that is no text must be escaped
        quoted = json.dumps(raw, ensure_ascii=not raw.isprintable())
        text = text.replace(f"raw: {ingest['raw']}", f"raw: {quoted}", 1)
    old = write_params(Path(PARAMS), text)
    kept = f"; what it was is in {old}" if old else ""
    return sentence(
        f"{PARAMS} is now the preset {preset}{kept}.",
        params=PARAMS,
        preset=preset,
        old=old and str(old),
    )


@main.command()
@click.option("--spacing", type=click.FloatRange(0, min_open=True), help="Voxel size in mm.")
@click.option(
    "--memory",
    type=click.FloatRange(0, min_open=True),
    help="GiB to stay within, in place of 90 % of the device's.",
)
@dry_run
@prints
def plan(spacing: float | None, memory: float | None, dry_run: bool) -> Found:
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
    written = "" if dry_run else planning.write(found, Path.cwd())

    def show() -> None:
        click.echo(planning.as_text(found))
        terminal.table(planning.COLUMNS, planning.rows(found))
        click.echo("Memory and times are forecasts; times may be off by a factor of two.")
        if written:
            click.echo(written)

    return Found(planning.as_values(found) | {"written": bool(written)}, show)


@main.command()
@click.argument("path", type=click.Path(exists=True, file_okay=False, path_type=Path))
@prints
def verify(path: Path) -> Found:
    """Check every byte of a published output against its MANIFEST.json."""
    from vqmri.outputs import verify as check

    manifest = check(path)
    count = len(manifest.items)
    return sentence(
        f"{path}: {count} items are as they were published.",
        path=str(path),
        items=count,
        stage=manifest.provenance.get("stage"),
        fingerprint=manifest.fingerprint,
    )


@main.command()
@prints
def doctor() -> Found:
    """Say whether this machine and the servers it is told of are fit; exit code 2 if not."""
    from vqmri.layout import Layout
    from vqmri.stages import doctor as of

    checks = of.doctor(Layout(Path.cwd()))
    fit = all(check.verdict != "error" for check in checks)
    return Found(
        {"fit": fit, "checks": [vars(check) for check in checks]},
        lambda: terminal.table(of.COLUMNS, of.rows(checks)),
        code=0 if fit else 2,
    )


@main.command()
@dry_run
@prints
def clean(dry_run: bool) -> Found:
    """Remove unpublished work of killed or abandoned stages."""
    from vqmri.layout import Layout
    from vqmri.outputs.publish import clean as remove
    from vqmri.outputs.rehearsal import rehearsing

    paths: list[Path] = []
    with rehearsing() if dry_run else nullcontext():
        paths = remove(Layout(Path.cwd()).work)
    what = "would remove" if dry_run else "removed"
    lines = [f"{what} {path}" for path in paths] or ["there is no abandoned work"]
    return sentence("\n".join(lines), removed=[str(path) for path in paths], dry_run=dry_run)
