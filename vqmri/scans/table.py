"""Small tables for people."""

import csv
import io
from collections.abc import Iterable, Sequence


def tsv(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> bytes:
    """Tab-separated text in UTF-8, a line per row."""
    text = io.StringIO()
    writer = csv.writer(text, delimiter="\t", lineterminator="\n")
    writer.writerow(columns)
    writer.writerows([" ".join(str(value).splitlines()) for value in row] for row in rows)
    return text.getvalue().encode()
