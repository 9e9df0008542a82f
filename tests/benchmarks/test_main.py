"""`make bench`: what was found is kept, and the README says nothing else."""

import json
import re
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

from benchmarks import __main__ as bench
from benchmarks.tables import tables
from tests.conftest import REPO

SMALL = ("quantizer_speed", "--tokens", "1400", "--num-embeddings", "16", "--dim", "8",
         "--rounds", "1")  # fmt: skip


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Results and README of a test, and one small benchmark."""
    (tmp_path / "results").mkdir()
    (tmp_path / "README.md").write_text(
        "before\n<!-- benchmarks: begin -->\n<!-- benchmarks: end -->\nafter\n"
    )
    monkeypatch.setattr(bench, "RESULTS", tmp_path / "results")
    monkeypatch.setattr(bench, "README", tmp_path / "README.md")
    monkeypatch.setattr(bench, "BENCHMARKS", {"quantizer_speed": SMALL})
    monkeypatch.chdir(REPO)
    return tmp_path


def test_what_a_benchmark_found_is_kept_with_date_machine_and_commit_and_shown(
    elsewhere: Path,
) -> None:
    assert bench.main(["quantizer_speed"]) == 0
    kept = json.loads((elsewhere / "results/quantizer_speed.json").read_text())
    assert kept["commit"].rstrip("+")
    assert re.match(r"1 core of |\d+ cores of ", kept["machine"])
    assert kept["seconds"] >= 1
    ratio = kept["found"]["ratio_peer"]
    shown = (elsewhere / "README.md").read_text()
    assert shown.startswith("before\n")
    assert shown.endswith("after\n")
    assert f"| {ratio:.1f} times | {kept['date']}, {kept['machine']}, {kept['commit']} |" in shown


def test_one_that_fails_is_named_and_what_was_kept_stays(
    elsewhere: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    old: dict[str, Any] = {"found": {"ratio_peer": 0.5, "ratio_product": 2.0}}
    old |= {"date": "2026-01-01", "machine": "m", "commit": "c", "seconds": 1}
    (elsewhere / "results/quantizer_speed.json").write_text(json.dumps(old))
    monkeypatch.setattr(bench, "BENCHMARKS", {"quantizer_speed": (SMALL[0], "--tokens", "7")})
    assert bench.main([]) == 1
    assert "quantizer_speed failed: exit code 2" in capfd.readouterr().err
    assert json.loads((elsewhere / "results/quantizer_speed.json").read_text()) == old
    assert "| 0.5 times | 2026-01-01, m, c |" in (elsewhere / "README.md").read_text()


def test_an_unknown_name_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        bench.main(["speed"])
    assert "unknown: speed" in capsys.readouterr().err


def test_every_benchmark_has_its_module() -> None:
    for name in bench.BENCHMARKS:
        module = bench.command(name, Path("data"))[2]
        assert find_spec(module) is not None, module


def test_the_tables_of_the_readme_are_those_of_the_results() -> None:
    begin, end = (f"<!-- {bench.MARK}: {word} -->\n" for word in ("begin", "end"))
    shown = (REPO / "README.md").read_text().split(begin)[1].split(end)[0]
    assert shown.strip() == tables(bench.kept())


def test_what_was_estimated_is_said_to_be() -> None:
    found = {"forwards_b4": 1.1, "ratio_naive_b4": 1300.0, "ratio_peer_b4": 9000.0}
    found |= {"naive_measured": True, "peer_measured": False}
    kept = {"found": found, "date": "d", "machine": "m", "commit": "c", "seconds": 1}
    shown = tables({"sampling": kept})
    assert "| 1,300 times |" in shown
    assert "| 9,000 times, estimated from its steps |" in shown


def test_every_result_is_of_a_benchmark() -> None:
    assert set(bench.kept()) <= set(bench.BENCHMARKS)
