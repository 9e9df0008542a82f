"""The commands that the docs tell a user to type, for tests to type them."""

import re
import shlex
from pathlib import Path

from tests.conftest import REPO

_DOCS = sorted((REPO / "docs").rglob("*.md"))
PAGES = ("README.md", "CONTRIBUTING.md", *(str(path.relative_to(REPO)) for path in _DOCS))
TOOLS = {"$EDITOR", "dask", "dvc", "env", "make", "mlflow", "pip", "prefect", "python", "source",
         "torchrun", "vqmri"}  # fmt: skip
"""Words that a command begins with."""

_FENCED = re.compile(r"^```(?:bash|sh)?\n(.*?)^```", re.MULTILINE | re.DOTALL)
_ANY_FENCED = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
_LAST_CELL = re.compile(r"\| `([^`]+)` \|$", re.MULTILINE)
_SPAN = re.compile(r"`([^`\n]+)`")
_COMMENT = re.compile(r"\s+#\s.*$")


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


def blocks(text: str, *languages: str) -> list[str]:
    """The fenced blocks of a page in these languages, "" for none."""
    return [block for language, block in _ANY_FENCED.findall(text) if language in languages]


def every_command(text: str) -> list[str]:
    """All of a page: every line of its blocks of commands, and what stands between backticks.

    A plain block that does not begin with one of TOOLS is a drawing or a tree. Between backticks a
    tool's name by itself is no command.
    """
    found = []
    for block in [*blocks(text, "bash", "sh"), *filter(_begins, blocks(text, ""))]:
        found += [_COMMENT.sub("", line).strip() for line in block.splitlines()]
    rest = _ANY_FENCED.sub("", text)
    found += [span for span in _SPAN.findall(rest) if _begins(span) and " " in span]
    return [command for command in dict.fromkeys(found) if command]


def by_page() -> dict[str, list[str]]:
    """Every command of README.md, CONTRIBUTING.md and docs/, with the pages it stands on."""
    found: dict[str, list[str]] = {}
    for page in PAGES:
        for command in every_command(Path(REPO / page).read_text(encoding="utf-8")):
            found.setdefault(command, []).append(page)
    return found


def _begins(text: str) -> bool:
    return text.split()[0] in TOOLS
