"""A figure is one file: of the package, or in a folder of the user."""

from pathlib import Path

import numpy as np
import pytest

from reports import plots
from reports.build import build_report
from reports.draw import figures_of
from reports.inspection_report import write_inspection
from tests.reports.studies import components, write
from tests.reports.test_inspection_figures import look

FIGURE = """
from matplotlib.figure import Figure
import pandas as pd

TITLE = "Mine"
KINDS = ("ablation", "inspection")
PLACE = 0


def prepare(source):
    return pd.DataFrame({"x": [1.0, 2.0]})


def draw(data, source):
    figure = Figure(figsize=(1, 1))
    figure.subplots().plot(data["x"], data["x"])
    return figure
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A figure of the user; the package's own path is restored afterwards."""
    monkeypatch.setattr(plots, "__path__", list(plots.__path__))
    monkeypatch.setenv("TCPA_PLUGINS", str(tmp_path / "plugins"))
    (tmp_path / "plugins" / "plots").mkdir(parents=True)
    (tmp_path / "plugins" / "plots" / "mine.py").write_text(FIGURE)


def test_figures_of_a_report_are_ordered_by_place_and_chosen_by_kind() -> None:
    inspected = list(figures_of("inspection"))
    assert inspected[:2] == ["attention_cls", "attention_image"]
    assert inspected[-1] == "prompt_share_by_number" and len(inspected) == 8
    assert not set(inspected) & set(figures_of("search"))
    assert list(figures_of("search"))[0] == "history" and "factors" not in figures_of("search")


@pytest.mark.usefixtures("own")
def test_a_file_adds_a_figure_to_reports_and_inspections(tmp_path: Path) -> None:
    study = write(tmp_path / "s", components({"VPT": {0: 0.8}, "+R": {0: 0.9}}), "ablation")
    build_report(study)
    assert (study / "report" / "figures" / "mine.svg").is_file()
    assert "Mine (report/figures/mine.svg" in (study / "report" / "report.html").read_text()
    said = write_inspection({"vpt": look()}, study)
    assert said[0].split("(")[1].startswith("mine, attention_cls")
    assert (study / "report" / "inspection" / "mine.pdf").is_file()


def test_figures_of_trials_prepare_plain_numbers() -> None:
    trials = {"vpt": look(5, 0.25), "cvpt": look(9, 0.0, cls=False), "tcpa": look(pool=True)}
    figures = figures_of("inspection")
    share = figures["prompt_share"].prepare(trials)
    assert share.groupby(["number", "label"]).size().to_dict() == {
        ("prompt_share_cls", "vpt"): 3, ("prompt_share_cls", "tcpa"): 3,
        ("prompt_share_image", "vpt"): 3, ("prompt_share_image", "cvpt"): 3,
        ("prompt_share_image", "tcpa"): 3,
    }  # fmt: skip
    assert share["value"][share["label"] == "vpt"].tolist() == [25.0] * 6
    usage = figures["prompt_usage"].prepare(trials)
    assert list(usage) == [("tcpa", "image")]
    assert usage["tcpa", "image"].tolist() == [[0.5, 0.5, 0.0], [1.0, 0.0, 0.0], [0.5, 0.3, 0.2]]
    by_number = figures["prompt_share_by_number"].prepare(trials)
    assert by_number["prompts"].tolist() == [5, 5, 9, 5, 5]
    maps = figures["attention_cls"].prepare(trials)
    assert list(maps) == ["vpt", "tcpa"]
    assert np.array_equal(maps["vpt"][1], trials["vpt"]["cls_maps"][-1])


FAULTS = {
    "prepare": ('return pd.DataFrame({"x": [1.0, 2.0]})', "return 1 / 0", "ZeroDivisionError"),
    "draw": ("figure = Figure(figsize=(1, 1))", 'open("/nowhere/x")', "FileNotFoundError"),
    "sentence": (
        "def draw(",
        "def sentence(data, source):\n    return 1 / 0\n\n\ndef draw(",
        "Zero",
    ),
    "import": ('TITLE = "Mine"', 'raise ValueError("x")', "ValueError"),
    "lacks": ("PLACE = 0", "", "does not define 'PLACE'"),
    "kinds": ('("ablation", "inspection")', '("ablaton", "inspection")', "has ablaton"),
    "text": ('("ablation", "inspection")', '"ablation"', "has 'ablation'"),
    "none": ('("ablation", "inspection")', "()", "has nothing"),
    "place": ("PLACE = 0", 'PLACE = "first"', "PLACE of"),
}
"""What is replaced in a figure's file by what, and what is said of it."""


@pytest.mark.usefixtures("own")
def test_a_faulty_file_is_a_sentence_and_the_others_are_drawn(tmp_path: Path) -> None:
    for fault, (good, bad, _) in FAULTS.items():
        assert good in FIGURE
        path = tmp_path / "plugins" / "plots" / f"faulty_{fault}.py"
        path.write_text(FIGURE.replace(good, bad))
    study = write(tmp_path / "s", components({"VPT": {0: 0.8}, "+R": {0: 0.9}}), "ablation")
    summary = build_report(study)
    page, inspected = summary.html.read_text(), write_inspection({"vpt": look()}, study)
    for fault, (_, _, told) in FAULTS.items():
        name = f"faulty_{fault}"
        (note,) = [note for note in summary.notes if name in note]
        assert told in note and "left out" in note and name in page
        assert f"{name}.py" in note
        # an inspection has no sentences
        assert sum(name in line and told in line for line in inspected) == (fault != "sentence")
    figures = study / "report" / "figures"
    assert (figures / "factors.svg").is_file() and (figures / "mine.svg").is_file()
    assert (study / "report" / "inspection" / "mine.svg").is_file()
