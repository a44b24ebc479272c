"""The notebooks of docs run from their first cell to their last, and show what they compute."""

import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import pytest

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "notebooks"
NOTEBOOKS = sorted(path.stem for path in FOLDER.glob("*.ipynb"))


def code(name: str) -> list[dict[str, Any]]:
    """The code cells of a notebook."""
    book = json.loads((FOLDER / f"{name}.ipynb").read_text(encoding="utf-8"))
    assert book["nbformat"] == 4
    return [cell for cell in book["cells"] if cell["cell_type"] == "code"]


@pytest.mark.integration
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_runs(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """In Jupyter: the current folder is the notebook's own, and no path leads to the checkout."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.chdir(FOLDER)
    import_module("reports.build")  # installed, even where that means the checkout's path
    monkeypatch.setattr(sys, "path", [path for path in sys.path if Path(path).resolve() != ROOT])
    for module in [name for name in sys.modules if name.partition(".")[0] == "benchmarks"]:
        monkeypatch.delitem(sys.modules, module)
    names: dict[str, Any] = {}
    with matplotlib.rc_context({"backend": "agg"}):
        for place, cell in enumerate(code(name)):
            exec(compile("".join(cell["source"]), f"{name}.ipynb, cell {place}", "exec"), names)
        assert plt.get_fignums(), "it draws something"
        plt.close("all")
    assert list(tmp_path.rglob("report.html"))


def test_there_are_notebooks_and_their_outputs_are_kept() -> None:
    assert {"read_a_search", "ablation_with_tests"} <= set(NOTEBOOKS)
    for name in NOTEBOOKS:
        shown = [output for cell in code(name) for output in cell["outputs"]]
        assert any("image/png" in output.get("data", {}) for output in shown)
        assert not [output for output in shown if output["output_type"] == "error"]
