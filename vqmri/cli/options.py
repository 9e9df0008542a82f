"""What commands have in common: how they print what they found, and options."""

import json
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

import click
from click.shell_completion import CompletionItem

from vqmri import terminal

PRESETS = Path(__file__).parents[1] / "presets"
"""Folder of ready params, a YAML file for each."""

_CHAMPION = "models:/vqmri-generator@champion"

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
dry_run = click.option(
    "--dry-run", is_flag=True, help="Make all checks, say what would be done, and write nothing."
)
mask = click.option("--mask", type=FILE, help="Its brain mask, if this project's scans have one.")


@dataclass(frozen=True)
class Found:
    """What a command found.

    show: prints it for a person, in place of a table of all figures
    code: the exit code
    """

    values: Mapping[str, Any]
    show: Callable[[], None] | None = None
    code: int = 0


def prints(command: Callable[..., Found | Mapping[str, Any]]) -> Callable[..., None]:
    """A command that prints what it returns: for a person, or with --json for a program."""

    @click.option("--json", "as_json", is_flag=True, help="Print one JSON object, nothing else.")
    @wraps(command)
    def printing(*arguments: Any, as_json: bool, **options: Any) -> None:
        with redirect_stdout(sys.stderr):  # whatever a library prints is no result
            found = command(*arguments, **options)
        found = found if isinstance(found, Found) else Found(found)
        if as_json:
            click.echo(_json(found.values))
        elif found.show:
            found.show()
        else:
            terminal.show(found.values)
        if found.code:
            sys.exit(found.code)

    return printing


def sentence(text: str, **values: Any) -> Found:
    """What a person is told in a sentence."""
    return Found(values, lambda: click.echo(text))


def _json(values: Mapping[str, Any]) -> str:
    """JSON knows no NaN and no infinity: null."""
    plain = json.loads(json.dumps(values), parse_constant=lambda name: None)
    return json.dumps(plain, sort_keys=True)


def _covariates(
    context: click.Context, option: click.Parameter, pairs: tuple[str, ...]
) -> dict[str, object]:
    """NAME=VALUE, or NAME=VALUE,VALUE for a list that the samples go through."""
    found: dict[str, object] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not (name and equals and value):
            raise click.BadParameter(f"{pair!r} is not NAME=VALUE; write it as sex=F or age=60,70")
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


def of_whom(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say whose scan it is."""
    covariates = click.option(
        "--covariate",
        "covariates",
        multiple=True,
        metavar="NAME=VALUE",
        callback=_covariates,
        shell_complete=_begin_with(lambda: _known_covariates(Path("data/prior/model.json"))),
        help="Of the subject, as sex=F; may be repeated. What is not named is left open.",
    )
    extrapolate = click.option(
        "--extrapolate",
        is_flag=True,
        help="Allow a covariate outside the range of the training subjects.",
    )
    return covariates(extrapolate(command))


def how_to_draw(command: Callable[..., Any]) -> Callable[..., Any]:
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
    return of_whom(command)


def given(options: dict[str, object]) -> dict[str, object]:
    """The options that were given: a flag that is off was not, and 0 is a value."""
    return {n: v for n, v in options.items() if v not in (None, {}) and v is not False}


def presets() -> list[str]:
    """Names that --preset may have."""
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def _begin_with(values: Callable[[], Any]) -> Callable[..., list[CompletionItem]]:
    """Completion by those of the values that begin with what was typed."""

    def complete(
        context: click.Context, option: click.Parameter, typed: str
    ) -> list[CompletionItem]:
        return [CompletionItem(value) for value in values() if value.startswith(typed)]

    return complete


complete_preset = _begin_with(presets)
complete_model = _begin_with(lambda: [_CHAMPION])


def _known_covariates(model: Path) -> Iterator[str]:
    """Of the project's prior, with their values where these are a few."""
    try:
        covariates = json.loads(model.read_bytes())["arguments"]["covariates"]
        for about in covariates:
            yield from (f"{about['name']}={value}" for value in about.get("values", [""]))
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return  # there is none yet
