"""What CONTRIBUTING.md shows works as it stands: one file adds one thing."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
TEXT = (ROOT / "CONTRIBUTING.md").read_text()
EXAMPLES = dict(re.findall(r"`mine/(\S+\.py)`:\n\n```python\n(.*?)```", TEXT, re.S))


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    for name, code in EXAMPLES.items():
        path = tmp_path / "mine" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(code)
    return tmp_path / "mine"


def run(mine: Path, *arguments: str) -> str:
    environment = {**os.environ, "TCPA_PLUGINS": str(mine)}
    command = [sys.executable, "-m", "search.cli", *arguments]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_every_kind_has_an_example() -> None:
    assert {name.partition("/")[0] for name in EXAMPLES} >= {
        "data",
        "plots",
        "samplers",
        "schedulers",
    }


def test_the_data_set_is_read(mine: Path) -> None:
    told = run(mine, "data", "stripes")
    assert "3 classes" in told and "train: 60 images, 20 a class" in told


def test_the_sampler_is_planned_with_the_data_set(mine: Path, tmp_path: Path) -> None:
    space = tmp_path / "space.yaml"
    space.write_text(
        "name: tried\nbase: {data.name: stripes, methods: [linear], train.epochs: 1}\n"
        "axes: {optim.lr: {float: [1.0e-3, 1.0e-1], log: true}}\n"
        "sampler: {name: halton}\nscheduler: {name: halves}\nbudget: {trials: 4}\n"
    )
    told = run(mine, "plan", str(space), "--root", str(tmp_path / "studies"))
    assert "halton sampler, scheduler halves" in told


def test_the_figure_is_drawn(mine: Path, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "tests" / "old_studies", tmp_path / "studies")
    run(mine, "report", "old_ablation", "--root", str(tmp_path / "studies"))
    (report,) = (tmp_path / "studies" / "old_ablation").rglob("report.html")
    assert "Epochs trained" in report.read_text()


def test_the_verb_works(tmp_path: Path) -> None:
    """In a copy of the package: a verb belongs to a checkout."""
    ((name, code),) = re.findall(r"`(search/commands/\w+\.py)`:\n\n```python\n(.*?)```", TEXT, re.S)
    for package in ("search", "spaces", "reports", "tcpa_core"):
        shutil.copytree(ROOT / package, tmp_path / package)
    (tmp_path / name).write_text(code)
    root = str(ROOT / "tests" / "old_studies")
    command = [sys.executable, "-m", "search.cli", "slowest", "old_search", "--root", root]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert re.fullmatch(r"\d{5}: \d+ s\n", done.stdout), done.stderr
