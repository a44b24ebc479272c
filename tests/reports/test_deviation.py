"""Trials that differ from what they claim are marked in every table."""

from pathlib import Path

import pytest

from reports.build import build_report
from reports.frames import load
from tests.reports.studies import components, write

TOLD = ["train.selection=best_val (vpt-vtab: last_epoch)", "data.train_on=train (x: y)"]
VALUES = {"VPT": {0: 0.7, 1: 0.72}, "TCPA": {0: 0.8, 1: 0.81}}


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Two rows with two seeds; the trials of the second row deviate."""
    events = components(VALUES)
    for event in events:
        if event["kind"] == "planned" and event["params"]["tcpa.row"] == "TCPA":
            event["deviation"] = TOLD
    return write(tmp_path / "study", events, kind="ablation")


def test_tables_have_the_deviation(study: Path) -> None:
    found = load(study)
    assert found.trials["deviation"].tolist() == ["", "", *["; ".join(TOLD)] * 2]
    rows = found.ablation[found.ablation["factor"] == "components"]
    by_level = dict(zip(rows["level"], rows["deviation"], strict=True))
    assert by_level == {"VPT": "", "TCPA": "; ".join(TOLD)}


def test_what_a_reader_sees_says_deviation(study: Path) -> None:
    summary = build_report(study)
    assert "† 2 trials deviate from what they claim: " + "; ".join(TOLD) + "." in summary.notes
    markdown = (study / "tables" / "ablation.md").read_text()
    assert "| TCPA † |" in markdown
    assert "| VPT |" in markdown
    assert "† deviation, TCPA: train.selection=best" in markdown
    latex = (study / "tables" / "ablation.tex").read_text()
    assert r"TCPA $^\dagger$ &" in latex
    assert r"\footnotesize $^\dagger$ deviation, TCPA: " in latex
    page = (study / "report" / "report.html").read_text()
    assert "TCPA †" in page
    assert "train.selection=best_val (vpt-vtab: last_epoch)" in page


def test_studies_in_full_accord_say_nothing(tmp_path: Path) -> None:
    study = write(tmp_path / "study", components(VALUES), kind="ablation")
    summary = build_report(study)
    assert "†" not in "".join(summary.notes)
    assert "†" not in (study / "tables" / "ablation.md").read_text()


def test_data_sets_side_by_side_are_marked(tmp_path: Path) -> None:
    events = []
    for name in ("dtd", "svhn"):
        for event in components(VALUES):
            number = int(event["trial"]) + (100 if name == "svhn" else 0)
            event = {**event, "trial": f"{number:05d}"}
            if event["kind"] == "planned":
                first = event["params"]["tcpa.row"] == "VPT"
                event["params"] = {**event["params"], "data.root": f"/x/{name}",
                                   "methods": ["vpt"] if first else ["damvp"]}  # fmt: skip
                event["point"] += name
                event["labels"] = {"cells": []}
                event["deviation"] = [] if first else TOLD[:1]
            events.append(event)
    study = write(tmp_path / "study", events)
    build_report(study)
    wide = (study / "tables" / "across.md").read_text()
    assert "| damvp † |" in wide and "| vpt |" in wide
    assert "† deviation, damvp: train.selection" in wide
    found = load(study)
    for table in (found.scores, found.ranks):
        told = table[table["level"] == "damvp"]["deviation"]
        assert set(told) == {TOLD[0]}
