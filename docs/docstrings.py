"""Docstrings as Markdown: their lines of `name: what it is` become a list.

mkdocs.yml names this as an extension of griffe, which reads them.
"""

import re
from typing import Any

import griffe

_ITEM = re.compile(r"^([a-z_]\w*(?:, [a-z_]\w*)*): (.+)$")


class Items(griffe.Extension):
    """Changes every docstring as it is read."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Called for each module, class, function and attribute."""
        if obj.docstring:
            obj.docstring.value = as_markdown(obj.docstring.value)


def as_markdown(docstring: str) -> str:
    """The same text, with a list where its lines begin with a name and a colon."""
    lines: list[str] = []
    listed = False
    for line in docstring.splitlines():
        item = _ITEM.match(line)
        if bool(item) != listed and line and not line.startswith(" "):
            lines.append("")
            listed = bool(item)
        lines.append(f"- `{item[1]}`: {item[2]}" if item else line)
    return "\n".join(lines)
