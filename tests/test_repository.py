"""The repository as a whole: what must never be committed, and what the README promises."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.conftest import REPO

TRACKED = [
    REPO / name
    for name in subprocess.run(
        ["git", "ls-files"], cwd=REPO, check=True, capture_output=True, text=True
    ).stdout.split()
]
TEXT = [p for p in TRACKED if p.suffix in {".py", ".toml", ".yaml", ".md", ".txt", ".jinja", ""}]


def test_no_large_file_and_no_data_is_tracked() -> None:
    assert all(path.stat().st_size < 2_000_000 for path in TRACKED if path.is_file())
    data = [p for p in TRACKED if p.is_relative_to(REPO / "data")]
    assert [p.name for p in data] == ["README.md"]


def test_no_absolute_path_of_a_machine() -> None:
    pattern = re.compile(r"(?<![\w./])/" + r"(?:home/\w+|root|Users/\w+|work)/")
    for path in TEXT:
        assert not pattern.search(path.read_text(encoding="utf-8")), path


def test_constraints_hold_versions_and_no_address() -> None:
    lines = (REPO / "constraints.txt").read_text().splitlines()
    assert len(lines) > 100
    for line in lines:
        assert re.fullmatch(r"[A-Za-z0-9_.\-]+==[A-Za-z0-9_.!]+", line), line


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md"])
def test_links_and_pictures_exist(name: str) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", (REPO / name).read_text()):
        if not target.startswith("https://"):
            assert (REPO / Path(target)).is_file(), target


def test_every_folder_of_the_readmes_tree_exists() -> None:
    tree = (REPO / "README.md").read_text().split("## The tree")[1].split("```")[1]
    for folder in re.findall(r"^  (\w+)/", tree, flags=re.MULTILINE):
        assert (REPO / "vqmri" / folder).is_dir(), folder
