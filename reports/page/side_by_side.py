"""The page of several studies: who leads on which data, the table, and what they do not share."""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from reports.frames import Frames
from reports.labels import Row, is_missing, unspoken
from reports.page.cell_text import stars
from reports.page.data_set_tables import ABOUT, DataSetTable
from reports.page.level_tables import INTERVALS, LevelTable, adjusted_head, level_tables
from reports.page.rendering import render
from reports.parquet import write_text
from reports.side_by_side import Entry, SideBySide
from reports.statistics.paired_tests import ERROR
from reports.tables import counts
from reports.verdicts.words import p_said


def write_side_by_side(
    found: SideBySide,
    across: Sequence[DataSetTable],
    page: Path,
    folders: Sequence[Path],
    live_s: float | None,
) -> list[str]:
    """Write the page; who leads on which data, in sentences.

    Args:
        across: Tables across data sets; none where there is one.
        folders: Of the studies, to whose own pages it links.
        live_s: Seconds until it is written again; None: it stays.
    """
    tables = level_tables(found.levels)
    sentences = [_lead(table) for table in tables]
    text = render(
        "side_by_side",
        styles=("report", "side_by_side", "live"),
        scripts=("live",),
        live_s=live_s,
        names=found.names,
        sentences=sentences,
        studies=[
            _about(one, folder, page) for one, folder in zip(found.studies, folders, strict=True)
        ],
        tables=[_shown(table, found.entries) for table in tables],
        intervals=INTERVALS,
        has_settings=any(entry.setting for entry in found.entries),
        across=across,
        about_across=ABOUT,
        differing=_differing(found, of_search=False),
        searching=_differing(found, of_search=True),
        columns=list(found.differing),
        notes=found.notes,
    )
    write_text(page, text)
    return sentences


OF_SEARCH = ("ablation", "axes", "budget", "constraints", "first_points", "sampler", "scheduler")
"""Keys of a space that say which trials are made, not what a trial is."""


def _differing(found: SideBySide, *, of_search: bool) -> list[tuple[str, list[str]]]:
    """What the studies do not share: settings of trials, or which trials were made."""
    rows = ((str(place), list(row)) for place, *row in found.differing.itertuples())
    return [row for row in rows if (row[0].partition(".")[0] in OF_SEARCH) == of_search]


def _lead(table: LevelTable) -> str:
    """Who leads, and whether the table shows that it does."""
    rows = [level for level in table.levels if level.val["n"]]
    place = table.title.partition(" on ")[2]
    best = max(rows, key=lambda level: level.val["mean"])
    value, _, spread = best.cells()["val"].partition(" ")
    what = unspoken(best.val["metric"])
    text = (
        f"{place}: {best.name} has the highest mean{what and ' '}{what} on val, "
        f"{value} %{spread and ' '}{spread}"
    )
    base = next((level for level in rows if level.val["is_baseline"]), best)
    if base is best:
        others = [level for level in rows if level is not best]
        worse = [level.name for level in others if _is_shown(level.val)]
        if not others:
            return f"{text}; it stands alone there."
        if len(worse) == len(others):
            return f"{text}; all others are shown to be below it."
        return f"{text}; that it leads is {'not ' if not worse else 'in part not '}shown."
    how = f"{best.cells()['difference']} points to {base.name}"
    if _is_shown(best.val):
        return f"{text}: {how}, {p_said(best.val['p_holm'])} after Holm."
    if is_missing(best.val["p"]):
        return f"{text} ({how}, not tested)."
    return (
        f"{text}, but no difference to {base.name} is shown ({how}, "
        f"{p_said(best.val['p_holm'])} after Holm; this design sees "
        f"{best.cells()['detectable']} points)."
    )


def _is_shown(row: Row) -> bool:
    return not is_missing(row["p_holm"]) and row["p_holm"] < ERROR


def _about(one: Frames, folder: Path, page: Path) -> dict[str, Any]:
    """A study's own row: what it is, and where its page lies."""
    own = folder / "report" / "report.html"
    backbones = {str(part.get("backbone", "")) for part in one.study.preprocessing}
    return {
        "name": one.study.name,
        "link": os.path.relpath(own, page.parent) if own.is_file() else "",
        "kind": one.study.kind,
        "backbone": ", ".join(sorted(backbones)),
        "counts": ", ".join(f"{n} {status}" for status, n in counts(one.trials).items()),
        "seeds": ", ".join(map(str, one.study.seeds)),
        "minutes": one.trials["duration_s"].sum() / 60,
    }


def _shown(table: LevelTable, entries: Sequence[Entry]) -> Mapping[str, Any]:
    """Rows of one data set as cells; entries and levels have the same names."""
    dataset = table.title.partition(" on ")[2]
    of = {entry.level: entry for entry in entries if entry.dataset == dataset}
    rows = [
        {
            **level.cells(),
            "tests": level.tested(),
            "place": place,
            "stars": stars(level.val),
            "entry": of[level.name],
        }
        for level, place in zip(table.levels, table.places(), strict=True)
    ]
    return {
        "dataset": dataset,
        "heads": table.heads,
        "adjusted": adjusted_head(table.family),
        "rows": rows,
    }
