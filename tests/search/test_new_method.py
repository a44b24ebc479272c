"""The method of docs/new_method.md, in a folder or a package: planned, searched, seen, reported."""

import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.tcpa_core.packages import install

ROOT = Path(__file__).parents[2]


@pytest.fixture(params=["folder", "package"])
def project(tmp_path: Path, request: pytest.FixtureRequest) -> Path:
    """A folder with the files that the document shows."""
    text = (ROOT / "docs" / "new_method.md").read_text()
    blocks = dict(re.findall(r"```(python|yaml|toml)\n(.*?)```", text, re.S))
    (tmp_path / "space.yaml").write_text(blocks["yaml"])
    (tmp_path / "plugins" / "methods").mkdir(parents=True)
    if request.param == "folder":
        (tmp_path / "plugins" / "methods" / "gain.py").write_text(blocks["python"])
    else:  # what pip leaves behind
        points = tomllib.loads(blocks["toml"])["project"]["entry-points"]
        install(tmp_path / "site", "my_package", points)
        (tmp_path / "site" / "my_package" / "gain_method.py").write_text(blocks["python"])
    return tmp_path


def _tcpa(project: Path, *arguments: str, plugins: bool = True) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "TCPA_CACHE": str(project / "cache"), "COLUMNS": "200"}
    env.pop("TCPA_PLUGINS", None)
    folders = [str(ROOT), env.get("PYTHONPATH")]
    if plugins:
        env["TCPA_PLUGINS"] = str(project / "plugins")
        folders.append(str(project / "site"))
    command = [sys.executable, "-m", "search.cli", *arguments]
    path = os.pathsep.join(filter(None, folders))
    return subprocess.run(
        command, cwd=project, env={**env, "PYTHONPATH": path}, capture_output=True, text=True
    )


@pytest.mark.integration
def test_a_new_method_is_planned(project: Path) -> None:
    planned = _tcpa(project, "plan", "space.yaml")
    assert planned.returncode == 0, planned.stderr
    assert "plan of gain" in planned.stdout
    unknown = _tcpa(project, "plan", "space.yaml", plugins=False)
    assert unknown.returncode != 0
    assert "'gain'" in unknown.stdout + unknown.stderr


@pytest.mark.integration
def test_a_new_method_is_searched_inspected_and_reported(project: Path) -> None:
    done = _tcpa(project, "search", "space.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    seen = _tcpa(project, "inspect", "gain", "0")
    assert seen.returncode == 0, seen.stdout + seen.stderr
    assert "looked into trial 0 (gain)" in seen.stdout
    assert len(next(project.rglob("inspection.csv")).read_text().splitlines()) > 6
    reported = _tcpa(project, "report", "gain")
    assert reported.returncode == 0, reported.stdout + reported.stderr
    pages = [path.read_text() for path in project.rglob("*.html")]
    assert pages and "gain" in pages[0]
    table = next(project.rglob("trials.csv")).read_text()
    assert table.count("completed") == 2 and "gain.init" in table.splitlines()[0]
