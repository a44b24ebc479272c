"""The main table of a bench as text, for Markdown, LaTeX and the page alike.

Methods are rows. Data sets are columns, group by group, each group with its mean; what holds over
all of them stands behind, and published numbers below.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from reports.bench.tables import MEAN_OF_GROUPS, BenchTables
from reports.labels import Row, is_missing, text_or_nothing
from reports.page.cell_text import deviation_notes, mean_text, stars, with_interval, with_mark
from reports.page.data_set_tables import column_places

WIDE = 6
"""Data sets from which numbers have one digit."""
OVER_ALL = "over data sets"
COSTS = "cost"
GAP = "-"
ABOUT = (
    "Each cell is the mean over fresh seeds of the setting that its search and these seeds "
    "selected on val, ± half of Student's 95 % interval. Δ is the mean over data sets of the "
    "differences to the baseline, each paired by seed, with the 95 % interval over data sets of "
    "Wilcoxon's signed ranks (from six on; fewer cannot be told apart at 5 %); * p < 0.05, "
    "** p < 0.01 by that test, after Holm over the methods. Rank is the mean over data sets, 1 is "
    "best. Parameters are those trained without the head; time is the training of one seed. Best "
    "bold, second underlined; ‡ a cell that lacks some of its seeds."
)


@dataclass(frozen=True, slots=True)
class Head:
    """One column."""

    name: str
    group: str = ""
    """That of the data set, or what the column is about."""
    is_mean: bool = False
    """Whether it is over several data sets."""


@dataclass(frozen=True, slots=True)
class MainTable:
    """The table of one backbone and split."""

    backbone: str
    metric: str
    heads: tuple[Head, ...]
    names: tuple[str, ...]
    """Methods, each with a dagger where its trials differ from what they claim."""
    cells: tuple[tuple[str, ...], ...]
    """By method, then by head."""
    places: tuple[tuple[int, ...], ...]
    """1 for the best of a column, 2 for the second, else 0."""
    published: tuple[tuple[str, tuple[str, ...]], ...]
    """Others' numbers: label and cells."""
    notes: tuple[str, ...]

    @property
    def title(self) -> str:
        """Backbone and split."""
        return f"{self.backbone}, {self.metric}"

    def groups(self) -> list[tuple[str, int]]:
        """Heads of neighbouring columns of one group, each with the number of its columns."""
        found: list[tuple[str, int]] = []
        for head in self.heads:
            if found and found[-1][0] == head.group:
                found[-1] = head.group, found[-1][1] + 1
            else:
                found.append((head.group, 1))
        return found


def main_table(tables: BenchTables, backbone: str, metric: str) -> MainTable:
    """The table of a backbone and split; cells without a value are dashes."""
    columns = _Columns(tables, backbone, metric)
    shown = [*columns.of_data(), *columns.over_all(), *columns.of_cost()]
    heads, texts, values = zip(*shown, strict=True)
    ordered = [column_places(one, len(columns.methods), 1) for one in values]
    deviations = {
        method: text_or_nothing(row.get("deviation")) for method, row in columns.rows.items()
    }
    published, about = _published(tables, backbone, metric, heads)
    return MainTable(
        backbone,
        metric,
        tuple(heads),
        tuple(with_mark(method, deviations.get(method)) for method in columns.methods),
        tuple(zip(*texts, strict=True)),
        tuple(zip(*ordered, strict=True)),
        published,
        (*about, *deviation_notes(deviations)),
    )


Column = tuple[Head, list[str], list[float | None]]
"""A column's head, texts, and numbers that are larger where they are better; [] ranks nothing."""


class _Columns:
    """Columns of one table."""

    def __init__(self, tables: BenchTables, backbone: str, metric: str) -> None:
        cells = tables.of("cells", backbone).to_dict("records")
        self.methods = list(dict.fromkeys(row["method"] for row in cells))
        self._datasets = list(dict.fromkeys(row["dataset"] for row in cells))
        self._groups = tables.bench.groups
        self._metric = metric
        self._cells: Mapping[tuple[str, str], Row] = {
            (row["method"], row["dataset"]): row for row in cells
        }
        self.rows: dict[str, Row] = {
            row["method"]: row for row in tables.of("methods", backbone, metric).to_dict("records")
        }
        self._means: Mapping[tuple[str, str], float] = {
            (row["method"], row["group"]): row["mean"]
            for row in tables.of("groups", backbone, metric).to_dict("records")
        }

    def of_data(self) -> Iterator[Column]:
        """Data sets by group, each group with its mean; then those of no group."""
        grouped = [name for members in self._groups.values() for name in members]
        for group, members in self._groups.items():
            for dataset in members:
                if dataset in self._datasets:
                    yield self._of(dataset, group)
            yield self._mean(group, Head("mean", group, is_mean=True))
        for dataset in self._datasets:
            if dataset not in grouped:
                yield self._of(dataset, "")

    def over_all(self) -> Iterator[Column]:
        """Means, difference and rank over the data sets that all compared methods have."""
        rows = [self.rows.get(method, {}) for method in self.methods]
        means = [row.get("mean") for row in rows]
        yield Head("mean", OVER_ALL, is_mean=True), [_percent(m) for m in means], means
        if self._groups:
            yield self._mean(MEAN_OF_GROUPS, Head(MEAN_OF_GROUPS, OVER_ALL, is_mean=True))
        if any(row.get("is_baseline") for row in rows):
            yield Head("Δ", OVER_ALL, is_mean=True), [_delta(row) for row in rows], []
        ranks = [row.get("mean_rank") for row in rows]
        texts = [GAP if is_missing(rank) else f"{rank:.2f}" for rank in ranks]
        best = [None if rank is None or is_missing(rank) else -rank for rank in ranks]
        yield Head("rank", OVER_ALL, is_mean=True), texts, best

    def of_cost(self) -> Iterator[Column]:
        """What a method trains and takes."""
        sizes = [self._cost(method, "num_trainable_no_head") for method in self.methods]
        yield Head("parameters", COSTS), [count_text(size) for size in sizes], []
        times = [self._cost(method, "train_s") for method in self.methods]
        yield Head("time", COSTS), [time_text(time) for time in times], []

    def _of(self, dataset: str, group: str) -> Column:
        digits = 1 if len(self._datasets) >= WIDE else 2
        rows = [self._cells.get((method, dataset), {}) for method in self.methods]
        values = [row.get(self._metric) for row in rows]
        texts = [
            mean_text({"n": 0 if is_missing(value) else row["n"], "mean": value,
                       "low": row.get(f"{self._metric}_low"),
                       "high": row.get(f"{self._metric}_high")}, digits=digits)
            for row, value in zip(rows, values, strict=True)
        ]  # fmt: skip
        lacks = [bool(row.get("missing")) and text != GAP for row, text in
                 zip(rows, texts, strict=True)]  # fmt: skip
        marked = [f"{text} ‡" if lack else text for text, lack in zip(texts, lacks, strict=True)]
        return Head(dataset, group), marked, values

    def _mean(self, group: str, head: Head) -> Column:
        means = [self._means.get((method, group)) for method in self.methods]
        return head, [_percent(mean) for mean in means], means

    def _cost(self, method: str, name: str) -> float | None:
        """Mean over the data sets that it has."""
        found = [self._cells[method, d].get(name) for d in self._datasets
                 if (method, d) in self._cells]  # fmt: skip
        known = [float(value) for value in found if value is not None and not is_missing(value)]
        return sum(known) / len(known) if known else None


def _delta(row: Row) -> str:
    if row.get("is_baseline"):
        return "baseline"
    if is_missing(row.get("diff")):
        return GAP
    text = with_interval(row["diff"], row["diff_low"], row["diff_high"], row["n"], row["p"])
    return text + stars(row)


def _percent(value: float | None) -> str:
    return GAP if value is None or is_missing(value) else f"{100 * value:.2f}"


def count_text(value: float | None) -> str:
    """ "12.3 k", "1.20 M"; "-" where it is not known."""
    if value is None or is_missing(value):
        return GAP
    for unit, name in ((1e6, " M"), (1e3, " k")):
        if value >= unit:
            return f"{value / unit:.3g}{name}"
    return f"{value:.0f}"


def time_text(seconds: float | None) -> str:
    """ "4.2 s", "3.1 min", "2.5 h"; "-" where it is not known."""
    if seconds is None or is_missing(seconds):
        return GAP
    for unit, name in ((3600, "h"), (60, "min")):
        if seconds >= unit:
            return f"{seconds / unit:.1f} {name}"
    return f"{seconds:.1f} s"


def _published(
    tables: BenchTables, backbone: str, metric: str, heads: Sequence[Head]
) -> tuple[tuple[tuple[str, tuple[str, ...]], ...], list[str]]:
    """Rows of others' numbers, and what to know of them."""
    frame = tables.of("published", backbone)
    if frame.empty or metric != "test":
        return (), []
    rows, notes = [], []
    for (method, source), part in frame.groupby(["method", "source"], sort=False):
        values = dict(zip(part["dataset"], part["value"], strict=True))
        cells = [_percent(values.get(head.name)) if not head.is_mean else "" for head in heads]
        rows.append((f"{method} ({source})", tuple("" if c == GAP else c for c in cells)))
    notes.append(_about_published(frame))
    return tuple(rows), notes


def _about_published(frame: pd.DataFrame) -> str:
    benchmarks, selections = (
        ", ".join(frame[name].drop_duplicates()) for name in ("benchmark", "selection")
    )
    text = f"Rows in grey are others' scores on test (benchmark {benchmarks}; {selections})."
    for caveat, part in frame[frame["caveat"] != ""].groupby("caveat", sort=False):
        text += f" {', '.join(part['method'].drop_duplicates())}: {caveat}."
    return text
