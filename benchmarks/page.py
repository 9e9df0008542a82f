"""What commands write into Markdown pages, between marks that stand there."""

from pathlib import Path

from vqmri.outputs import replace_file


def put(page: Path, mark: str, text: str) -> None:
    """Replace what stands between `<!-- mark: begin -->` and its end; ValueError without these."""
    before = page.read_text(encoding="utf-8")
    begin, end = f"<!-- {mark}: begin -->", f"<!-- {mark}: end -->"
    head, _, rest = before.partition(begin)
    _, found, tail = rest.partition(end)
    if not found:
        raise ValueError(f"{page} has no place for the table: {begin} … {end}")
    replace_file(page, f"{head}{begin}\n{text}\n{end}{tail}".encode())


def table(titles: list[str], rows: list[list[str]]) -> str:
    """As Markdown."""
    lines = [titles, ["---"] * len(titles), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
