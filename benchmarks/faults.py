"""Which faults were put in on purpose, how often, and what was lost?

    python -m benchmarks.faults [--long] [--write docs/reliability.md]

Runs the tests that are marked `faults` (--long: their long forms too, which take half an hour) and
prints a table of what they tell. --write puts it into a page, between the marks that stand there.
The last line is one JSON object: the number of kinds, of faults, and of those that were survived or
found. The exit code is pytest's: a fault that was not survived is a test that failed, and its row
is absent.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from xml.etree import ElementTree

from benchmarks.page import put, table

MARK = "faults"

Row = tuple[str, int, int, str]


def run(marks: str, report: Path, options: Sequence[str] = ()) -> int:
    """Run the tests; what they tell is in `report`, JUnit's XML. Pytest's exit code."""
    command = [sys.executable, "-m", "pytest", "-m", marks, f"--junitxml={report}", *options]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.run(command, env=environment, check=False).returncode


def rows(report: Path) -> list[Row]:
    """What the tests that passed have told, sorted; rows of one fault and outcome are summed."""
    sums: dict[tuple[str, str], tuple[int, int]] = {}
    for case in ElementTree.parse(report).iter("testcase"):
        if case.find("failure") is not None or case.find("error") is not None:
            continue
        for told in case.iterfind("properties/property[@name='fault']"):
            fault, tried, survived, outcome = told.attrib["value"].split(" | ")
            before = sums.get((fault, outcome), (0, 0))
            sums[fault, outcome] = before[0] + int(tried), before[1] + int(survived)
    return sorted((fault, *counts, outcome) for (fault, outcome), counts in sums.items())


def as_table(found: Sequence[Row]) -> str:
    """As Markdown."""
    titles = ["fault", "tried", "survived or found", "what happened"]
    return table(titles, [[str(value) for value in row] for row in found])


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; its exit code."""
    command = argparse.ArgumentParser("python -m benchmarks.faults")
    command.add_argument("--long", action="store_true")
    command.add_argument("--write", type=Path)
    options = command.parse_args(arguments)
    with TemporaryDirectory(prefix="vqmri-faults-") as place:
        report = Path(place) / "report.xml"
        marks = "faults" if options.long else "faults and not long"
        code = run(marks, report, ["--numprocesses", "logical", "--maxprocesses", "2"])
        found = rows(report)
    text = as_table(found)
    print(text)
    if options.write:
        put(options.write, MARK, text)
    tried, survived = sum(row[1] for row in found), sum(row[2] for row in found)
    print(json.dumps({"benchmark": "faults", "kinds": len(found), "tried": tried,
                      "survived": survived}), flush=True)  # fmt: skip
    return code


if __name__ == "__main__":
    sys.exit(main())
