"""The commands that the docs tell a user to type, for tests to type them."""

import re
import shlex

from tests.conftest import REPO

_FENCED = re.compile(r"^```(?:bash|sh)?\n(.*?)^```", re.MULTILINE | re.DOTALL)
_LAST_CELL = re.compile(r"\| `([^`]+)` \|$", re.MULTILINE)


def commands(file: str, heading: str) -> list[list[str]]:
    """Those below a heading of `file`, up to the next, as argument lists.

    They stand in fenced blocks, a line each, or are the last cell of a table's row.
    """
    text = (REPO / file).read_text(encoding="utf-8")
    sections = re.split(r"^#+ ", text, flags=re.MULTILINE)
    (section,) = (part for part in sections if part.split("\n", 1)[0] == heading)
    lines = [line for block in _FENCED.findall(section) for line in block.splitlines()]
    found = [shlex.split(line, comments=True) for line in lines + _LAST_CELL.findall(section)]
    return [command for command in found if command]
