"""`tcpa list`: a line for each study of a root, whatever state its files are in."""

import os
import re
from pathlib import Path
from typing import Any

import pytest

from search.study.folder import StudyDir
from search.study.journal import Journal
from search.verbs.overview import study_lines
from spaces.load import load_space
from tcpa_core.errors import StudyError
from tcpa_core.record.events import encode_line
from tests.journals import write
from tests.search.conftest import make_space

DONE = {"kind": "completed", "status": "completed"}
FAILED = {"kind": "failed", "status": "failed", "reason": "loss is nan"}
PLANNED = {"kind": "planned", "params": {"seed": 0}}
STARTED = {"kind": "study", "name": "x"}


def make(root: Path, name: str, *events: dict[str, Any], **changes: Any) -> StudyDir:
    study = StudyDir.create(root, name, make_space(**changes), {}, "")
    if events:
        journal = Journal(study.journal_path)
        write(journal, *events)
        journal.close()
    return study


def rows(root: Path) -> dict[str, list[str]]:
    """Columns of each study; columns stand at least two spaces apart."""
    lines = list(study_lines(root))
    assert lines[0].split("  ")[0] == "study"
    split = [[cell.strip() for cell in line.split("  ") if cell.strip()] for line in lines[1:]]
    return {name: rest for name, *rest in split}


def test_state_trials_best_and_last_event(tmp_path: Path) -> None:
    trials = [{**PLANNED, "trial": f"0000{n}", "point": str(n)} for n in range(4)]
    ends = [
        {**DONE, "trial": "00000", "val_accuracy": 0.5},
        {**DONE, "trial": "00001", "val_accuracy": 0.7},
        {**FAILED, "trial": "00002"},
    ]
    make(tmp_path, "new")
    make(tmp_path, "killed", STARTED, *trials, *ends)
    make(tmp_path, "done", STARTED, *trials, *ends, {"kind": "finished"})
    make(tmp_path, "ended", STARTED, {"kind": "stopped", "reason": "interrupted by SIGINT"})
    make(tmp_path, "more", STARTED, {"kind": "finished"}, {"kind": "extended", "trials": 4})
    make(tmp_path, "again", STARTED, {"kind": "stopped", "reason": "x"}, {"kind": "resumed"})
    runs = make(tmp_path, "runs", STARTED, *trials, *ends)
    runs.lock()
    try:
        found = rows(tmp_path)
    finally:
        runs.unlock()
    best = "val_accuracy 0.7000 (trial 00001)"
    assert found["new"] == ["search", "planned", "0 of 12", "0"]
    assert found["killed"][:5] == ["search", "interrupted", "3 of 12", "1", best]
    assert found["done"][:5] == ["search", "finished", "3 of 12", "1", best]
    assert found["runs"][:5] == ["search", "running", "3 of 12", "1", best]
    states = {name: columns[1] for name, columns in found.items()}
    assert states | {"ended": "stopped", "more": "extended", "again": "interrupted"} == states
    assert found["done"][5].endswith(" finished") and found["done"][5].startswith("20")


def test_an_ablation_counts_its_design(tmp_path: Path) -> None:
    StudyDir.create(tmp_path, "parts", load_space("tcpa_components"), {}, "")
    assert rows(tmp_path)["parts"] == ["ablation", "planned", "0 of 9", "0"]


def test_a_damaged_study_has_a_line_that_says_so_and_hides_no_other(tmp_path: Path) -> None:
    make(tmp_path, "whole")
    damaged = {
        "torn": lambda s: s.journal_path.write_bytes(b"no line of a journal\nanother\n"),
        "strange": lambda s: s.journal_path.write_bytes(
            encode_line({"kind": "completed", "trial": "9"})
        ),
        "fields": lambda s: s.journal_path.write_bytes(encode_line({"kind": "planned", "t": 0.0})),
        "yaml": lambda s: (s.path / "study.yaml").write_text("[1, 2"),
        "other": lambda s: (s.path / "study.yaml").write_text("{schema: 1, kind: search}"),
        "without": lambda s: (s.journal_path.touch(), (s.path / "study.yaml").unlink()),
    }
    for name, damage in damaged.items():
        damage(make(tmp_path, name))
    (tmp_path / "link").symlink_to(tmp_path / "whole")
    (tmp_path / "Not a study").mkdir()
    (tmp_path / "Not a study" / "study.yaml").touch()
    (tmp_path / "mlartifacts").mkdir()
    found = rows(tmp_path)
    assert found.keys() == {"whole", "link", "Not a study", *damaged}
    assert found.pop("whole") == ["search", "planned", "0 of 12", "0"]
    for name, columns in found.items():
        assert columns[0].startswith("cannot be read: "), (name, columns)
        assert len(columns[0]) > len("cannot be read: ") + 10


@pytest.mark.parametrize("name", ["old", "Big"])
def test_a_folder_that_is_no_study_says_what_it_lacks(name: str, tmp_path: Path) -> None:
    study = make(tmp_path, "old", STARTED)
    (study.path / "study.yaml").rename(tmp_path / "kept.yaml")
    make(tmp_path, "big").path.rename(tmp_path / "Big")
    why = {"old": "journal but no study.yaml", "Big": "1 to 64 of a-z.*; rename the folder"}[name]
    with pytest.raises(StudyError, match=why):
        StudyDir.open(tmp_path, name)
    assert re.search(why, rows(tmp_path)[name][0])


def test_a_journal_that_is_no_file_is_told(tmp_path: Path) -> None:
    make(tmp_path, "old").journal_path.mkdir()
    with pytest.raises(StudyError, match=r"old/journal.jsonl is not a file that can be read"):
        StudyDir.open(tmp_path, "old")


def test_an_empty_folder_is_no_mistake(tmp_path: Path) -> None:
    assert list(study_lines(tmp_path)) == [f"no studies in {tmp_path}."]


@pytest.mark.skipif(os.getuid() == 0, reason="root may read everything")
def test_a_study_of_somebody_else_has_a_line(tmp_path: Path) -> None:
    study = make(tmp_path, "closed")
    (study.path / "study.yaml").chmod(0)
    assert rows(tmp_path)["closed"][0].startswith("cannot be read: ")
