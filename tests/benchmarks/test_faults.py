from pathlib import Path

import pytest

from benchmarks import faults
from benchmarks.page import put

TOLD = """
from tests.faults import tell

def test_killed(record_property):
    tell(record_property, "SIGKILL in encode", 10, 10, "same bytes")

def test_killed_again(record_property):
    tell(record_property, "SIGKILL in encode", 5, 5, "same bytes")

def test_lost(record_property):
    tell(record_property, "bit flip", 7, 6, "found")
    assert False

def test_disk(record_property):
    tell(record_property, "disk full", 3, 3, "exit 5")
"""


def test_the_table_holds_what_tests_that_passed_have_told(tmp_path: Path) -> None:
    (tmp_path / "test_told.py").write_text(TOLD)
    report = tmp_path / "report.xml"
    assert faults.run("not long", report, ["-q", str(tmp_path / "test_told.py")]) == 1
    found = faults.rows(report)
    assert found == [
        ("SIGKILL in encode", 15, 15, "same bytes"),
        ("disk full", 3, 3, "exit 5"),
    ]
    page = tmp_path / "page.md"
    page.write_text("# Page\n<!-- faults: begin -->\nold\n<!-- faults: end -->\nrest\n")
    put(page, faults.MARK, faults.as_table(found))
    text = page.read_text()
    assert text.startswith("# Page\n")
    assert text.endswith("rest\n")
    assert "| SIGKILL in encode | 15 | 15 | same bytes |" in text
    assert "old" not in text
    (tmp_path / "bare.md").write_text("nothing")
    with pytest.raises(ValueError, match="no place"):
        put(tmp_path / "bare.md", faults.MARK, "")
