"""One self-contained page: the answer first, then the evidence, then every trial."""

import base64
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jinja2
import numpy as np
import pandas as pd
from markupsafe import Markup

from reports.frames import Frames
from reports.page.data_set_tables import ABOUT, wide_tables
from reports.page.level_tables import (
    INTERACTIONS,
    INTERVALS,
    Reference,
    adjusted_head,
    caption,
    cells,
    effect_tables,
    methods_label,
    ranking,
    shown,
    stars,
    told,
)
from reports.parquet import write_atomic
from reports.plots.base import method_column
from reports.tables import TRIAL_COLUMNS, varied

if TYPE_CHECKING:
    from reports.build import ReportSummary

REPLAY = "tcpa replay {study} {trial}"
"""The command that runs a trial again."""
ALWAYS = ("trial", "status", "val_accuracy")
IF_TOLD = ("test_accuracy", "seed", "best_epoch", "num_trainable", "duration_s", "device",
           "deviation", "reason")  # fmt: skip
"""Shown where they differ between trials."""
COSTS = ("num_trainable", "flops_per_image", "duration_s", "peak_memory_bytes")


@dataclass(frozen=True, slots=True)
class Drawn:
    """A figure of the page, or the sentence that stands in its place."""

    name: str
    title: str
    path: Path | None
    """Without suffix."""
    sentence: str = ""
    is_wide: bool = False

    @property
    def image(self) -> str:
        """The SVG as an address that needs no file."""
        assert self.path is not None
        data = self.path.with_suffix(".svg").read_bytes()
        return "data:image/svg+xml;base64," + base64.b64encode(data).decode()


def write_html(
    summary: "ReportSummary",
    found: Frames,
    drawn: Sequence[Drawn],
    references: Sequence[Reference] = (),
) -> None:
    """Write report.html beside the figures; everything is inside it."""
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["methods"] = methods_label
    data = trial_data(found, summary)
    page = environment.from_string(_template("report.html.j2")).render(
        summary=summary,
        study=found.study,
        objective=found.study.objectives[0],
        ablation=ablation_rows(found.ablation),
        effects=effect_tables(found.effects),
        about_effects=INTERACTIONS,
        intervals=INTERVALS,
        references=references,
        published=caption(references),
        wide=wide_tables(found.across, found.scores, found.ranks, found.groups),
        about_wide=ABOUT,
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
    write_atomic(summary.html, lambda path: path.write_text(page, encoding="utf-8"))


def ablation_rows(table: pd.DataFrame) -> list[dict[str, Any]]:
    """Per factor its heading and cells."""
    found = []
    for factor, rows in shown(table):
        places = ranking(rows)
        found.append({
            "factor": factor,
            "adjusted": adjusted_head([val for _, val, _ in rows]),
            "told": told(rows),
            "rows": [{**cells(row), "place": places.get(row[0], 0), "stars": stars(row[1]),
                      "mean": row[1]["mean"], "diff": row[1]["diff"]} for row in rows],
        })  # fmt: skip
    return found


def overall(found: Frames) -> list[dict[str, Any]]:
    """Per factor the level with the highest mean accuracy on val over all data sets."""
    ranks = found.ranks[found.ranks["metric"] == "val_accuracy"]
    best = []
    for factor, rows in ranks.groupby("factor", sort=False):
        top = max(rows.to_dict("records"), key=lambda row: row["mean"])
        best.append({"factor": factor, "level": top["level"], "n": top["n"], "levels": len(rows),
                     "mean": f"{100 * top['mean']:.2f}", "rank": top["mean_rank"]})  # fmt: skip
    return best


def trial_data(found: Frames, summary: "ReportSummary") -> dict[str, Any]:
    """What the page's script shows: columns of the trial table, and points with their costs.

    Test values stand beside the selected configuration only.
    """
    trials = found.trials
    if summary.selected:
        chosen = trials["trial"].isin(summary.selected.trials)
        trials = trials.assign(test_accuracy=trials["test_accuracy"].where(chosen))
    told = [c for c in IF_TOLD if (trials[c].notna() & (trials[c] != "")).any()]
    rare = ("reason", "deviation", "test_accuracy")  # shown wherever there is one
    differ = [c for c in told if c in rare or trials[c].nunique(dropna=False) > 1]
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
    if value != value or value in (float("inf"), float("-inf")):
        return None
    return int(value) if value == int(value) else float(f"{value:.6g}")


def _template(name: str) -> str:
    return (files("reports.page.templates") / name).read_text(encoding="utf-8")
