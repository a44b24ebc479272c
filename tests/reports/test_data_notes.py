"""What a study recorded of its data stands in its trials and its report."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from reports.build import build_report
from reports.frames import frames
from reports.records.journal import load_journal
from tests.reports import studies

COUNTS = ["val_in_train", "test_in_train", "test_in_val", "two_labels"]
PAIRS = ("train/val", "train/test", "val/test")


def data_set(root: str, shared: tuple[int, int, int], two_labels: int, *notes: str) -> Any:
    """What study.yaml says of one data set."""
    settings = {"data.name": "folder", "data.root": root, "data.group": None}
    counts = {"shared": dict(zip(PAIRS, shared, strict=True)), "two_labels": two_labels}
    return {"name": f"folder {root}", "notes": list(notes), "settings": settings, **counts}


def study(folder: Path, **more: Any) -> Path:
    """A finished search on two data sets, and one trial whose data is not recorded."""
    events = []
    for i, root in enumerate(("owls", "foxes", "other")):
        events.append(studies.planned(i, data__name="folder", data__root=root))
        events.append(studies.final(i, "completed", 0.5))
    path = studies.write(folder, events)
    document = yaml.safe_load((path / "study.yaml").read_text())
    (path / "study.yaml").write_text(yaml.safe_dump(document | more))
    return path


def test_shared_pictures_are_columns_of_trials(tmp_path: Path) -> None:
    data = [data_set("owls", (1, 6, 0), 2), data_set("foxes", (0, 0, 0), 0)]
    found, arrow = frames(load_journal(study(tmp_path / "s", data=data)))
    rows = [arrow["trials"][name].to_pylist() for name in COUNTS]
    assert rows == [[1, 0, None], [6, 0, None], [0, 0, None], [2, 0, None]]
    assert found.trials["test_in_train"].sum() == 6
    assert all(arrow["trials"].schema.field(name).metadata[b"meaning"] for name in COUNTS)


def test_the_report_says_what_the_plan_said(tmp_path: Path) -> None:
    text = "6 of 15 test images are also in train, byte for byte."
    summary = build_report(study(tmp_path / "s", data=[data_set("owls", (0, 6, 0), 0, text)]))
    note = f"data folder owls: {text}"
    assert note in summary.notes
    assert f"note: {note}" in summary.lines()
    assert note in (tmp_path / "s" / "report" / "report.html").read_text()


def test_accepted_changes_are_said(tmp_path: Path) -> None:
    prints = {"recorded": {"data": "old"}, "found": {"data": "new"}}
    change = {"at": "2026-01-02", "study": "s", **prints}
    summary = build_report(study(tmp_path / "s", accepted_changes=[change]))
    note = "Went on at 2026-01-02 with other data than study 's' recorded: data (old recorded, "
    assert f"{note}new found)." in summary.notes


@pytest.mark.parametrize("older", [{}, {"data": []}, {"data": "none"}])
def test_older_records_have_no_counts(older: dict[str, Any], tmp_path: Path) -> None:
    found, _ = frames(load_journal(study(tmp_path / "s", **older)))
    assert found.trials[COUNTS].isna().all().all()
