"""The report of a confirmation: no stars for rows that were looked at again and again."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import yaml

from reports.build import build_report
from reports.summary import ReportSummary
from tests.reports.studies import components, final, write

CLEAR = {"point 1": {5: 0.90, 6: 0.91, 7: 0.90, 8: 0.90, 9: 0.91},
         "point 2": {5: 0.95, 6: 0.96, 7: 0.94, 8: 0.95, 9: 0.95}}  # fmt: skip
RACE: dict[str, Any] = {"design": "components", "seeds": [5, 6, 7, 8, 9], "test": "winner"}


def report(
    folder: Path, values: Mapping[str, Mapping[int, float]], failed: int = 0, **design: Any
) -> ReportSummary:
    """Of rows by seed, the first `failed` of which failed."""
    events = components(values)
    at = [i for i, event in enumerate(events) if event["kind"] == "completed"]
    for i in at[:failed]:
        events[i] = final(int(events[i]["trial"]), "failed", reason="out of memory")
    study = write(folder, events, "ablation")
    document = yaml.safe_load((study / "study.yaml").read_text())
    document["space"]["ablation"] = RACE | design
    (study / "study.yaml").write_text(yaml.safe_dump(document))
    return build_report(study)


def test_a_race_has_a_verdict_and_no_stars(tmp_path: Path) -> None:
    raced = report(tmp_path / "raced", CLEAR, race=True)
    table = pd.read_parquet(tmp_path / "raced" / "tables" / "ablation.parquet")
    assert table["diff"].notna().any() and table[["p", "p_holm"]].isna().all(axis=None)
    told = next(note for note in raced.notes if note.startswith("This is a race"))
    assert "one look of up to 3" in told and "point 2 wins: with " in told
    assert "Its mean is itself the best of 2 and still optimistic" in told
    once = report(tmp_path / "once", CLEAR)
    assert "]** | <0.001 |" in once.ablation_markdown
    assert not any(note.startswith("This is a race") for note in once.notes)


def test_the_row_whose_test_split_is_read_is_named(tmp_path: Path) -> None:
    """Even where a row that lacks a seed has the higher mean."""
    better_first = {"point 1": CLEAR["point 2"], "point 2": CLEAR["point 1"]}
    summary = report(tmp_path / "failed", better_first, failed=1, race=True)
    assert summary.selected is not None
    assert summary.selected.settings == {"components": "point 2"}
    told = next(note for note in summary.notes if note.startswith("This is a race"))
    assert "not decided: point 1 has no value for seed 5 and is better than point 2" in told
    assert "1 of 2 points with a value lack it for some of the 5 seeds" in "".join(summary.notes)


def test_a_race_that_still_runs_is_not_told_to_be_mended(tmp_path: Path) -> None:
    """Seed 8 of point 1 is being trained; of point 2 it has ended."""
    three = dict(list(CLEAR["point 1"].items())[:3])
    events = components({"point 1": three, "point 2": {5: 0.5, 6: 0.9, 7: 0.9, 8: 0.9}})
    events.append(events[0] | {"trial": "00099", "seed": 8})
    space = {"name": "r", "ablation": RACE | {"race": True}}
    summary = build_report(write(tmp_path / "runs", events, "ablation", space))
    told = next(note for note in summary.notes if note.startswith("This is a race"))
    assert "point 1 has no value for seed 8" in told and told.endswith("; let it run on.")
