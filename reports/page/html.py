"""One self-contained page: the answer first, then the evidence, then every trial."""

import json
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

import jinja2
import numpy as np
import pandas as pd
from markupsafe import Markup

from reports.columns import TRIAL_COLUMNS
from reports.draw import Drawn
from reports.frames import Frames
from reports.labels import method_column, methods_label
from reports.page.cell_text import stars
from reports.page.data_set_tables import ABOUT, data_set_tables
from reports.page.level_tables import (
    INTERACTIONS,
    INTERVALS,
    adjusted_head,
    caption,
    effect_tables,
    level_tables,
)
from reports.parquet import write_text
from reports.statistics.published_comparison import Published
from reports.summary import ReportSummary
from reports.tables import varied

REPLAY = "tcpa replay {study} {trial}"
"""The command that runs a trial again."""
ALWAYS = ("trial", "status", "val_accuracy")
IF_VARIED = ("test_accuracy", "seed", "best_epoch", "num_trainable", "duration_s", "device",
             "deviation", "reason")  # fmt: skip
"""Shown where they differ between trials."""
COSTS = ("num_trainable", "flops_per_image", "duration_s", "peak_memory_bytes")


def write_html(
    summary: ReportSummary,
    found: Frames,
    drawn: Sequence[Drawn],
    published: Sequence[Published] = (),
) -> None:
    """Write report.html; styles, script, figures and data are inside it, so it needs no network."""
    environment = jinja2.Environment(
        # Names and messages of a study are shown as text; StrictUndefined fails on a misspelt name.
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["methods"] = methods_label
    data = trial_data(found, summary)
    # from a string: templates lie in the installed package, which may be a zip file
    page = environment.from_string(_template("report.html.j2")).render(
        summary=summary,
        study=found.study,
        objective=found.study.objectives[0],
        ablation=ablation_rows(found.ablation),
        effects=effect_tables(found.effects),
        about_effects=INTERACTIONS,
        intervals=INTERVALS,
        published=published,
        about_published=caption(published),
        across=data_set_tables(found.across, found.scores, found.ranks, found.groups),
        about_across=ABOUT,
        overall=overall(found),
        drawn=[one for one in drawn if one.path],
        sentences=[one.sentence for one in drawn if not one.path and one.sentence],
        num_used=len(found.used),
        versions=found.study.document.get("versions", {}),
        git=found.study.document.get("git", ""),
        style=Markup(_template("report.css")),
        script=Markup(_template("report.js")),
        # "<" cannot end the script element early, nor can a comment begin
        data=Markup(
            json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
        ),
    )
    write_text(summary.html, page)


def ablation_rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Per factor what the template needs: title, head of the adjusted p, notes, rows of cells."""
    return [
        {
            "factor": one.title,
            "adjusted": adjusted_head(one.family),
            "notes": one.notes(),
            "rows": [{**level.cells(), "place": place, "stars": stars(level.val),
                      "mean": level.val["mean"], "diff": level.val["diff"]}
                     for level, place in zip(one.levels, one.places(), strict=True)],
        }
        for one in level_tables(table)
    ]  # fmt: skip


def overall(found: Frames) -> list[dict[str, Any]]:
    """Per factor the level with the highest mean accuracy on val over all data sets."""
    ranks = found.ranks[found.ranks["metric"] == "val_accuracy"]
    best = []
    for factor, rows in ranks.groupby("factor", sort=False):
        top = max(rows.to_dict("records"), key=lambda row: row["mean"])
        best.append({"factor": factor, "level": top["level"], "n": top["n"], "levels": len(rows),
                     "mean": f"{100 * top['mean']:.2f}", "rank": top["mean_rank"]})  # fmt: skip
    return best


def trial_data(found: Frames, summary: ReportSummary) -> dict[str, Any]:
    """What the page's script shows: columns of the trial table, and points with their costs.

    Of a search, test values are shown for the selected setting only.
    """
    trials = found.trials
    if summary.selected:
        chosen = trials["trial"].isin(summary.selected.trials)
        # Test values of all trials side by side would invite choosing by them.
        trials = trials.assign(test_accuracy=trials["test_accuracy"].where(chosen))
    present = [c for c in IF_VARIED if (trials[c].notna() & (trials[c] != "")).any()]
    # others are left out where every trial has the same
    rare = ("reason", "deviation", "test_accuracy")  # shown wherever there is one
    differ = [c for c in present if c in rare or trials[c].nunique(dropna=False) > 1]
    settings = varied(trials, found.settings)
    head = [*ALWAYS, *(c for c in differ if c == "test_accuracy"), *settings]
    names = [*head, *(c for c in differ if c != "test_accuracy")]
    about = {column.name: column for column in TRIAL_COLUMNS}
    columns = []
    for name in names:
        column = about.get(name)
        columns.append({
            "name": name,
            "unit": "%" if name.endswith("accuracy") else column.unit if column else "",
            "meaning": column.meaning if column else f"setting {name}",
            "values": _plain(trials[name], name),
        })  # fmt: skip
    objective = found.study.objectives[0]
    costs = {cost: _plain(trials[cost], cost) for cost in COSTS if trials[cost].nunique() > 1}
    return {
        "columns": columns,
        "settings": settings,
        "costs": costs,
        "objective": objective.metric,
        "maximize": objective.maximize,
        "is_search": found.study.kind == "search",
        "value": _plain(trials[objective.metric], objective.metric),
        "methods": list(method_column(trials).fillna("")),
        "replay": REPLAY.format(study=summary.name, trial="{trial}"),
    }


def _plain(column: pd.Series, name: str) -> list[Any]:
    """Values for JSON: accuracies in percent, numbers with six digits, missing ones null."""
    if pd.api.types.is_bool_dtype(column):
        return [None if v is pd.NA else bool(v) for v in column]
    if pd.api.types.is_numeric_dtype(column):
        numbers = column.to_numpy(float, na_value=np.nan)
        if name.endswith("accuracy"):
            numbers = 100 * numbers
        return [_digits(v) for v in numbers.tolist()]
    labels: Mapping[Any, Any] = {v: methods_label(v) if name == "methods" else v
                                 for v in column.dropna().unique()}  # fmt: skip
    return [labels.get(v) if isinstance(v, str) else None for v in column]


def _digits(value: float) -> float | int | None:
    # JSON has neither NaN nor infinity
    if value != value or value in (float("inf"), float("-inf")):
        return None
    return int(value) if value == int(value) else float(f"{value:.6g}")


def _template(name: str) -> str:
    return (files("reports.page.templates") / name).read_text(encoding="utf-8")
