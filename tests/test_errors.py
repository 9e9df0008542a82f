"""Every message of an expected error has the next step in it."""

import ast
import re

import pytest

from tests.conftest import REPO
from vqmri import errors

KINDS = {name for name, kind in vars(errors).items() if isinstance(kind, type)} | {"GateError"}
STEP = re.compile(
    r"`(vqmri|dvc) |\b([Aa]dd|[Aa]sk for|[Cc]hange|[Cc]hoose|[Cc]orrect|[Ff]etch|[Ff]ill|[Gg]ive|"
    r"goes on|[Ll]eave it|[Ll]et|[Ll]ower|[Mm]ake|[Mm]end|[Mm]ove|[Nn]ame|[Rr]emove|[Rr]ename|"
    r"[Rr]un|[Ss]ave|[Ss]ay|[Ss]et|[Ss]tart|[Tt]ake|[Ww]ait|[Ww]rite)\b|\{(REMEDY|remedy|lines)\}"
)
ELSEWHERE = {
    "vqmri/scans/bids_dataset.py": "_nothing",  # writes its message
    "vqmri/stages/promote.py": "'\\n'.join(lines)",  # a line per gate that was missed
}


def texts() -> list[tuple[str, str]]:
    """Place and text of every message that is made where it is raised."""
    found = []
    for path in sorted((REPO / "vqmri").rglob("*.py")):
        place = path.relative_to(REPO).as_posix()
        for call in ast.walk(ast.parse(path.read_text())):
            if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.args:
                text = ast.unparse(call.args[0])
                if call.func.id in KINDS and not text.startswith(ELSEWHERE.get(place, "\0")):
                    found.append((f"{place}:{call.lineno}", text))
    return found


MESSAGES = texts()


def test_the_messages_were_found() -> None:
    assert len(MESSAGES) > 80


@pytest.mark.parametrize(("place", "text"), MESSAGES, ids=[place for place, _ in MESSAGES])
def test_a_message_says_what_to_do(place: str, text: str) -> None:
    assert STEP.search(text), f"{place}: {text} does not say what to do next"
