"""Texts that people read: nothing left to fill in, and no link that leads nowhere."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.test_architecture import MAY_USE, MAY_USE_OURS

ROOT = Path(__file__).parents[1]
PLACEHOLDER = re.compile(r"@[A-Z]{2,}@|\bTO" r"DO\b|\bFIX" r"ME\b|\bXX" r"X\b|[Ll]orem ip" r"sum")
ENDINGS = ("*.md", "*.py", "*.yaml", "*.html", "*.j2", "*.css", "*.js", "*.ipynb", "*.toml")


def written() -> list[Path]:
    """Texts of the checkout, whatever else lies in it."""
    if not (ROOT / ".git").exists():
        pytest.skip("no git checkout: what belongs to the project is not known")
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", *ENDINGS]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return [ROOT / name for name in done.stdout.splitlines() if (ROOT / name).is_file()]


def test_no_placeholder_stands_in_any_text() -> None:
    found = [
        f"{path.relative_to(ROOT)}: {match.group()}"
        for path in written()
        for match in PLACEHOLDER.finditer(path.read_text(encoding="utf-8"))
    ]
    assert not found


def test_links_among_the_documents_lead_somewhere() -> None:
    broken = [
        f"{path.relative_to(ROOT)}: {target}"
        for path in written()
        if path.suffix == ".md"
        for target in re.findall(r"\]\((?!https?:|#)([^)#\s]+)", path.read_text(encoding="utf-8"))
        if not (path.parent / target).exists()
    ]
    assert not broken


FOLDERS = "tcpa_core|spaces|search|reports|tests|scripts|benchmarks|docs"
FILE = re.compile(rf"`((?:{FOLDERS})/[\w/]+\.\w+)`")
NOT_THERE = re.compile(
    r"NAME|<name>|benchmarks/results/|benchmarks/gpu_figures|search/commands/slowest.py"
)
"""What a reader is to write, and what benchmarks leave."""


def test_files_that_documents_name_are_there() -> None:
    missing = [
        f"{path.relative_to(ROOT)}: {name}"
        for path in written()
        if path.suffix == ".md"
        for name in FILE.findall(path.read_text(encoding="utf-8"))
        if not NOT_THERE.search(name) and not (ROOT / name).exists()
    ]
    assert not missing, "\n".join(missing)


def test_the_table_of_imports_in_the_architecture_is_the_one_that_is_held() -> None:
    text = (ROOT / "docs/architecture.md").read_text()
    rows = re.findall(r"^\| `(\w+)` \| (.+?) \| (.+?) \|$", text, re.M)
    assert {name: set(third.split(", ")) for name, _, third in rows} == MAY_USE
    ours = {name: set(re.findall(r"`([\w.]+)`", some)) for name, some, _ in rows}
    assert ours == MAY_USE_OURS
