"""Lint and tests mean the same in a fresh clone and after any command has left files in it."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = {"benchmarks", "reports", "scripts", "search", "spaces", "tcpa_core", "tests"}
SOURCES = sorted(path for name in FOLDERS for path in (ROOT / name).rglob("*.py"))


def _top_names(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module.partition(".")[0]


def test_no_import_names_a_file_beside_it() -> None:
    """`import tiny` means what the first folder of the path holds; `tests.tcpa_core.tiny` does not.

    The names of modules of ours, less those that an import means wherever it stands.
    """
    beside = {path.stem for path in SOURCES} | {path.parent.name for path in SOURCES}
    beside -= FOLDERS | sys.stdlib_module_names
    wrong = {f"{path.relative_to(ROOT)}: {name}" for path in SOURCES for name in _top_names(path)
             if name in beside}  # fmt: skip
    assert len(SOURCES) > 200 and {"tiny", "studies", "stub"} <= beside
    assert not wrong, "\n".join(sorted(wrong))


@pytest.mark.skipif(find_spec("ruff") is None, reason="ruff is not installed")
def test_the_order_of_imports_does_not_depend_on_folders_of_the_checkout(tmp_path: Path) -> None:
    """Every name that is imported lies there as a folder, as `studies` does after `quickstart`."""
    (tmp_path / "pyproject.toml").write_bytes((ROOT / "pyproject.toml").read_bytes())
    for path in SOURCES:
        copy = tmp_path / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    for name in {"studies", "build"}.union(*map(_top_names, SOURCES)):
        (tmp_path / name).mkdir(exist_ok=True)
    command = [sys.executable, "-m", "ruff", "check", "--no-cache", "--select", "I", "."]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_ci_runs_the_first_commands_of_the_readme_in_their_order() -> None:
    """`test` has to pass beside what `quickstart` leaves."""
    first = (ROOT / "README.md").read_text().partition("```bash\n")[2].partition("```")[0]
    commands = [line.partition("#")[0].strip() for line in first.splitlines()]
    ran = [line for line in (ROOT / ".ci" / "run").read_text().splitlines() if line in commands]
    assert commands == ran == ["make quickstart", "make test"]
