"""`make gpu` where there is no GPU: every part runs, with training's own packages alone."""

import json
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from benchmarks import gpu
from benchmarks._gpu.report import FIGURES, Part
from tests.test_architecture import CORE, MAY_USE

ROOT = Path(__file__).parents[1]
BLOCKED = set().union(*MAY_USE.values()) - CORE - {"yaml"}  # timm's own
ABSENT = f"""
from importlib.machinery import PathFinder
find = PathFinder.find_spec
def find_spec(name, path=None, target=None):
    return None if name.partition(".")[0] in {BLOCKED!r} else find(name, path, target)
PathFinder.find_spec = find_spec
"""


def test_every_part_runs_without_the_packages_of_the_search(tmp_path: Path) -> None:
    assert {"ray", "optuna", "mlflow", "pandas"} <= BLOCKED
    (tmp_path / "sitecustomize.py").write_text(ABSENT)
    out = tmp_path / "report"
    flags = "--device cpu --minutes 80"  # on a busy machine nothing is to be cut off
    command = ["make", "gpu", f"PYTHON={sys.executable}", f"GPU={out}", f"FLAGS={flags}"]
    path = {"PYTHONPATH": str(tmp_path), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **path}, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads((out / "report.json").read_text())
    page = (out / "report.md").read_text()
    assert list(report["parts"]) == [part.name for part in gpu.PARTS]
    for part in gpu.PARTS:
        assert report["parts"][part.name]["state"] == "done"
        assert report["parts"][part.name]["rows"], part.name
        assert f"\n## {part.title}\n" in page
        assert f"s] {part.title}\n" in done.stdout  # its progress
    (resumed,) = report["parts"]["resume"]["rows"]
    assert resumed["ok"] and resumed["values"]["off by"] == 0
    figures = json.loads((out / "figures.json").read_text())
    assert {step["members"] for step in figures["steps"]} == {1, 2}
    assert len(figures["trials_per_gpu_hour"]) == 3
    assert "No GPU was used" in page and not FIGURES.exists()
    assert not list(out.glob("scratch-*"))


PARTS = {
    "dies": "import os\ndef run(bench): os._exit(3)",
    "hangs": "import time\ndef run(bench): time.sleep(1000)",
    "raises": (
        "from benchmarks._gpu.bench import Finding\n"
        "def run(bench):\n"
        "    with bench.trying('first'): raise RuntimeError('no kernel')\n"
        "    bench.tell(Finding(what='second', values={'ms': 1.5}))\n"
        "    raise ValueError('the end')"
    ),
    "works": "def run(bench): pass",
}


def test_a_part_that_fails_says_so_and_the_next_one_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    for name, text in PARTS.items():
        (tmp_path / f"gpu_part_{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    parts = [Part(f"gpu_part_{name}", name, "", 2) for name in PARTS]
    assert gpu.run(tmp_path / "report", "cpu", "small", gpu.MINUTES, parts) == 1
    report = json.loads((tmp_path / "report" / "report.json").read_text())["parts"]
    found = {name: (part["state"], part["reason"]) for name, part in report.items()}
    assert found["gpu_part_dies"] == ("failed", "its process ended with code 3")
    assert found["gpu_part_hangs"][0] == "failed"
    assert re.fullmatch(r"cut off after \d+ s", found["gpu_part_hangs"][1])
    assert found["gpu_part_raises"] == ("failed", "ValueError: the end")
    first, second = report["gpu_part_raises"]["rows"]
    assert (first["ok"], first["note"]) == (False, "RuntimeError: no kernel")
    assert second["values"] == {"ms": 1.5}
    assert found["gpu_part_works"] == ("done", "")
    assert "not ok: raises: first RuntimeError: no kernel" in capfd.readouterr().out


def test_parts_that_have_no_time_left_are_named(tmp_path: Path) -> None:
    assert gpu.run(tmp_path, "cpu", "small", 0, gpu.PARTS[:2]) == 1
    report = json.loads((tmp_path / "report.json").read_text())["parts"]
    assert {part["state"] for part in report.values()} == {"not run"}


def test_what_make_gpu_installs_is_what_training_needs() -> None:
    """With the bounds of pyproject.toml."""
    needs = re.search(r"^GPU_NEEDS := (.+)$", (ROOT / "Makefile").read_text(), re.M)
    assert needs is not None
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    core = {name.lower().replace("pil", "pillow") for name in CORE}
    expected = [one for one in wanted if re.split(r"[><=\[]", one)[0] in core]
    assert needs[1].split() == sorted(expected) and len(expected) == len(CORE)
