"""One self-contained HTML file."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files

from jinja2 import Environment, StrictUndefined


@dataclass(frozen=True)
class Section:
    """One part of the report.

    text: what is seen and how to read it
    table: rows of (name, value, what it means)
    pictures: caption and PNG bytes
    head, rows: a wider table with column titles
    words: what stands in it are words; else all but the first column are numbers
    """

    title: str
    text: str
    table: Sequence[tuple[str, str, str]] = ()
    pictures: Sequence[tuple[str, bytes]] = ()
    head: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    words: bool = False


def render(title: str, sections: Sequence[Section], provenance: Mapping[str, str]) -> str:
    """HTML that asks the network for nothing: pictures are inside it."""
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True)
    environment.filters["base64"] = lambda data: base64.b64encode(data).decode()
    template = files(__package__).joinpath("report.html.jinja").read_text(encoding="utf-8")
    return environment.from_string(template).render(
        title=title, sections=sections, provenance=provenance
    )
