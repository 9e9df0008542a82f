"""`vqmri` itself: its help, and how every command ends."""

import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import click

from vqmri.errors import INTERRUPTED, STORAGE, VqmriError
from vqmri.stages import STAGES

SECTIONS = {
    "Stages, in the order of the data flow": tuple(STAGES),
    "To begin": ("init", "plan", "doctor"),
    "With trained models": ("generate", "reconstruct", "score", "register", "promote"),
    "With what was published": ("verify", "clean"),
}
"""Every command, as help groups them."""


@contextmanager
def faults_told(*, as_json: bool = False) -> Iterator[None]:
    """Turn expected errors into their message and exit code."""
    try:
        yield
        return
    except VqmriError as error:
        message, code = str(error), error.exit_code
    except KeyboardInterrupt:
        message, code = "interrupted. The same command goes on from here.", INTERRUPTED
    except OSError as error:
        message, code = f"{error}. Nothing that was published is lost.", STORAGE
        message += " When that is mended, the same command goes on."
    if as_json:
        _as_json(message, code)
    click.secho("vqmri: ", fg="red", nl=False, err=True)
    click.echo(message, err=True)
    sys.exit(code)


class Commands(click.Group):
    """A group whose commands tell their faults."""

    def invoke(self, context: click.Context) -> object:
        as_json = "--json" in context.args
        with faults_told(as_json=as_json):
            try:
                return super().invoke(context)
            except click.ClickException as error:
                if as_json:
                    _as_json(error.format_message(), error.exit_code)
                raise

    def format_commands(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        width = formatter.width - max(map(len, self.commands)) - 6
        for title, names in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl(
                    [(name, self.commands[name].get_short_help_str(width)) for name in names]
                )


def _as_json(message: str, code: int) -> None:
    click.echo(json.dumps({"error": message, "exit_code": code}))


@click.group(cls=Commands)
@click.version_option(package_name="vqmri")
def main() -> None:
    """Synthetic MRI scans by VQ-VAE and PixelCNN.

    A stage reads params.yaml in the current folder and publishes below data/. `dvc repro` runs
    those that must run.
    """
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: KeyboardInterrupt
    if click.get_current_context().invoked_subcommand != "doctor":  # it looks at what is set
        os.environ.setdefault("DO_NOT_TRACK", "true")
