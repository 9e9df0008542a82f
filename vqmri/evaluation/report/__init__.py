"""One self-contained HTML file."""

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from jinja2 import Environment, PackageLoader, StrictUndefined

from vqmri.evaluation.viewer import PLANES, Mosaics, Viewer, mosaics

__all__ = ["Section", "render"]


@dataclass(frozen=True)
class Section:
    """One part of the report.

    text: what is seen and how to read it
    table: rows of (name, value, what it means)
    pictures: caption and PNG bytes
    head, rows: a wider table with column titles
    words: what stands in it are words; else all but the first column are numbers
    page: the page that it stands on; pages are in the order in which they are first named
    viewers: volumes to scroll through
    """

    title: str
    text: str
    table: Sequence[tuple[str, str, str]] = ()
    pictures: Sequence[tuple[str, bytes]] = ()
    head: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    words: bool = False
    page: str = field(kw_only=True)
    viewers: Sequence[Viewer] = ()


@dataclass
class _Page:
    """What the template shows: sections with their ids and encoded viewers."""

    title: str
    id: str
    sections: list[tuple[str, Section, list[Mosaics]]] = field(default_factory=list)


def render(title: str, sections: Sequence[Section], provenance: Mapping[str, str]) -> str:
    """HTML that asks the network for nothing: pictures, style and script are inside it.

    It shows one page at a time, and without JavaScript or on paper all of them.
    """
    environment = Environment(
        loader=PackageLoader(__name__, ""),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
    )
    environment.filters["base64"] = lambda data: base64.b64encode(data).decode()
    return environment.get_template("report.html.jinja").render(
        title=title, pages=_pages(sections), provenance=provenance, planes=PLANES
    )


def _pages(sections: Sequence[Section]) -> list[_Page]:
    taken = {"provenance", "page-provenance"}
    pages: dict[str, _Page] = {}
    for section in sections:
        if section.page not in pages:
            pages[section.page] = _Page(section.page, _id(f"page {section.page}", taken))
        encoded = [mosaics(viewer) for viewer in section.viewers]
        pages[section.page].sections.append((_id(section.title, taken), section, encoded))
    return list(pages.values())


def _id(title: str, taken: set[str]) -> str:
    """The title's letters and digits, with a number when that is taken; it is then."""
    plain = re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-") or "section"
    found, number = plain, 1
    while found in taken:
        number += 1
        found = f"{plain}-{number}"
    taken.add(found)
    return found
