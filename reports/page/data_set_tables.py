"""Levels x data sets as papers print them: a column for each data set, then what holds over all."""

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from reports.labels import Row, is_missing
from reports.page.cell_text import deviation_notes, mean_text, stars, with_interval, with_mark
from reports.page.markup import escape_markdown, escape_tex, tex_cell
from reports.statistics.across_data_sets import MEAN_OF_GROUPS, MEAN_OF_TASKS, VTAB_GROUPS, Scores
from tcpa_core.record.scores import CALLED, is_share

WITH_INTERVALS = 5
"""Data sets up to which a cell has its interval over seeds; more are too wide for a page."""
ABOUT = (
    "± is half of Student's 95 % interval over seeds; Δ is the mean over data sets of the "
    "differences to the baseline, each paired by seed, from six data sets on with the 95 % "
    "interval of Wilcoxon's signed ranks (fewer cannot be told apart at 5 %); * p < 0.05, "
    "** p < 0.01 by that test, after Holm over the levels of the table; rank is the mean over data "
    "sets, 1 is best."
)


@dataclass(frozen=True, slots=True)
class DataSetTable:
    """One factor and metric as text: levels as rows, data sets as columns."""

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    """Each begins with its level."""
    places: tuple[tuple[int, ...], ...]
    """1 for the best of a column, 2 for the second, else 0; ties share."""
    notes: tuple[str, ...] = ()
    """What its daggers mean and its means leave out."""


def data_set_tables(
    scores: Sequence[Scores], cells: pd.DataFrame, ranks: pd.DataFrame, groups: pd.DataFrame
) -> list[DataSetTable]:
    """A table for each factor and metric; rows and columns in the design's order.

    Args:
        cells: Table `scores`, whose intervals are shown.
    """
    return [_table(one, _part(cells, one), _part(ranks, one), _part(groups, one)) for one in scores]


def _part(frame: pd.DataFrame, scores: Scores) -> pd.DataFrame:
    return frame[(frame["factor"] == scores.factor) & (frame["metric"] == scores.metric)]


def _table(
    scores: Scores, cells: pd.DataFrame, ranks: pd.DataFrame, groups: pd.DataFrame
) -> DataSetTable:
    by_cell: dict[tuple[str, str], Row] = {
        (row["level"], row["dataset"]): row for row in cells.to_dict("records")
    }
    by_level: dict[str, Row] = {row["level"]: row for row in ranks.to_dict("records")}
    is_narrow = scores.table.shape[1] <= WITH_INTERVALS
    scale = 100.0 if is_share(scores.metric) else 1.0
    columns: dict[str, list[str]] = {}
    # Texts and numbers apart: the best of a column is found by numbers, not by rounded texts.
    values: dict[str, Sequence[float]] = {}
    levels = list(scores.table.index)
    for dataset in map(str, scores.table):
        values[dataset] = list(scores.table[dataset])
        found = [by_cell.get((level, dataset), {"n": 0}) for level in levels]
        columns[dataset] = [_cell(row, scale, is_narrow) for row in found]
    names = _group_columns(groups)
    for name in names:
        means = dict(groups[groups["group"] == name][["level", "mean"]].to_numpy(object))
        values[name] = [means[level] for level in levels]
        columns[name] = [_number(means[level], scale) for level in levels]
    if by_level:
        whole = [by_level[level] for level in levels]
        # Where VTAB's groups have means, a mean over whatever data sets there are would mislead.
        if not names:
            values["mean"] = [row["mean"] for row in whole]
            columns["mean"] = [_number(row["mean"], scale) for row in whole]
        if scores.baseline:
            columns["Δ"] = [_delta(row, scale) for row in whole]
        columns["rank"] = [f"{row['mean_rank']:.2f}" for row in whole]
        # The lowest rank is best, whichever way the metric runs.
        values["rank"] = [-scores.sign * row["mean_rank"] for row in whole]
    ordered = [column_places(values.get(name, ()), len(levels), scores.sign) for name in columns]
    unit = " (%)" if scale == 100 else ""
    deviations = {str(row["level"]): row["deviation"] for row in by_cell.values()}
    names_of_levels = [with_mark(level, deviations.get(level)) for level in levels]
    return DataSetTable(
        f"{scores.factor}: {CALLED.get(scores.metric, scores.metric.replace('_', ' '))}{unit}",
        tuple(columns),
        tuple(zip(names_of_levels, *columns.values(), strict=True)),
        tuple(zip(*ordered, strict=True)),
        (*deviation_notes(deviations), *_gap_notes(ranks)),
    )


def _gap_notes(ranks: pd.DataFrame) -> list[str]:
    """Which data sets the columns over all of them leave out."""
    left_out = list(ranks["left_out"].iloc[:1])
    return [
        f"mean, Δ and rank leave out {names}: not every level has a value and a difference there."
        for names in left_out
        if names
    ]


def _group_columns(groups: pd.DataFrame) -> list[str]:
    """Groups of VTAB with a mean, and the two means over all tasks."""
    known = groups["group"][groups["mean"].notna()].unique()
    return [name for name in (*VTAB_GROUPS, MEAN_OF_TASKS, MEAN_OF_GROUPS) if name in known]


def _cell(row: Row, scale: float, is_narrow: bool) -> str:
    if not row["n"]:
        return "-"
    return mean_text(row, scale) if is_narrow else _number(row["mean"], scale, 1)


def _number(value: float, scale: float, digits: int = 2) -> str:
    if is_missing(value):
        return "-"
    return f"{scale * value:.{digits}f}" if scale == 100 else f"{value:.4g}"


def _delta(row: Row, scale: float) -> str:
    if row["is_baseline"]:
        return "baseline"
    text = with_interval(row["diff"], row["diff_low"], row["diff_high"], row["n"], row["p"], scale)
    return text + stars(row)


def column_places(values: Sequence[float | None], count: int, sign: int) -> list[int]:
    """Place of each value among the distinct ones: 1, 2, or 0; larger is better if sign is 1."""
    # rounded: sums in another order differ in their last bits
    known = [None if v is None or is_missing(v) else round(float(v), 12) for v in values]
    present = {v for v in known if v is not None}
    if len(present) < 2:
        return [0] * count
    best = sorted(present, reverse=sign > 0)[:2]
    return [best.index(v) + 1 if v in best else 0 for v in known]


def to_markdown(tables: Sequence[DataSetTable]) -> str:
    """All tables as Markdown; best bold, second underlined."""
    parts = []
    for one in tables:
        names = " | ".join(map(escape_markdown, one.columns))
        lines = [f"**{escape_markdown(one.title)}**", "", f"| | {names} |"]
        lines.append("|---|" + "--:|" * len(one.columns))
        for (level, *cells), places in zip(one.rows, one.places, strict=True):
            marks = [{1: "**{}**", 2: "<u>{}</u>"}.get(place, "{}") for place in places]
            shown = [m.format(escape_markdown(c)) for m, c in zip(marks, cells, strict=True)]
            lines.append(f"| {escape_markdown(level)} | " + " | ".join(shown) + " |")
        lines += [f"\n{escape_markdown(note)}" for note in one.notes]
        parts.append("\n".join(lines))
    return "\n\n".join([*parts, ABOUT]) + "\n" if parts else ""


def to_latex(tables: Sequence[DataSetTable]) -> str:
    """All tables as booktabs; needs the packages booktabs and graphicx.

    Names of many data sets stand upright, and the table is as wide as the text.
    """
    parts = []
    for one in tables:
        is_wide = len(one.columns) > WITH_INTERVALS + 3
        heads = [
            rf"\rotatebox{{90}}{{{n}}}" if is_wide else n for n in map(escape_tex, one.columns)
        ]
        fit = r"\setlength{\tabcolsep}{3pt}\resizebox{\linewidth}{!}{%" if is_wide else ""
        lines = [rf"{{\noindent{fit}"]
        lines += [rf"\begin{{tabular}}{{@{{}}l{'r' * len(heads)}@{{}}}}", r"\toprule"]
        lines += [" & ".join([escape_tex(one.title), *heads]) + r" \\", r"\midrule"]
        for (level, *cells), places in zip(one.rows, one.places, strict=True):
            marks = [{1: r"\textbf{%s}", 2: r"\underline{%s}"}.get(p, "%s") for p in places]
            shown = [m % tex_cell(c) for m, c in zip(marks, cells, strict=True)]
            lines.append(" & ".join([escape_tex(level), *shown]) + r" \\")
        lines += [r"\bottomrule", r"\end{tabular}}" + "}" * is_wide]
        lines += [rf"\par\noindent{{\footnotesize {escape_tex(note)}}}" for note in one.notes]
        parts.append("\n".join(lines))
    head = "% \\usepackage{booktabs,graphicx}\n% " + ABOUT.replace("%", "percent") + "\n"
    return head + "\n\n\\bigskip\n".join(parts) + "\n" if parts else ""
