"""The method of docs/new_method.md, dropped into a folder, is planned, searched and reported."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with the two files that the document shows."""
    text = (ROOT / "docs" / "new_method.md").read_text()
    blocks = dict(re.findall(r"```(python|yaml)\n(.*?)```", text, re.S))
    (tmp_path / "plugins" / "methods").mkdir(parents=True)
    (tmp_path / "plugins" / "methods" / "gain.py").write_text(blocks["python"])
    (tmp_path / "space.yaml").write_text(blocks["yaml"])
    return tmp_path


def _tcpa(project: Path, *arguments: str, plugins: bool = True) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "TCPA_CACHE": str(project / "cache"), "COLUMNS": "200"}
    env.pop("TCPA_PLUGINS", None)
    if plugins:
        env["TCPA_PLUGINS"] = str(project / "plugins")
    command = [sys.executable, "-m", "search.cli", *arguments]
    path = os.pathsep.join(filter(None, [str(ROOT), env.get("PYTHONPATH")]))
    return subprocess.run(
        command, cwd=project, env={**env, "PYTHONPATH": path}, capture_output=True, text=True
    )


@pytest.mark.integration
def test_a_dropped_file_is_planned(project: Path) -> None:
    planned = _tcpa(project, "plan", "space.yaml")
    assert planned.returncode == 0, planned.stderr
    assert "plan of gain" in planned.stdout
    unknown = _tcpa(project, "plan", "space.yaml", plugins=False)
    assert unknown.returncode != 0
    assert "'gain'" in unknown.stdout + unknown.stderr


@pytest.mark.integration
def test_a_dropped_file_is_searched_and_reported(project: Path) -> None:
    done = _tcpa(project, "search", "space.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    reported = _tcpa(project, "report", "gain")
    assert reported.returncode == 0, reported.stdout + reported.stderr
    pages = [path.read_text() for path in project.rglob("*.html")]
    assert pages and "gain" in pages[0]
    table = next(project.rglob("trials.csv")).read_text()
    assert table.count("completed") == 2 and "gain.init" in table.splitlines()[0]
