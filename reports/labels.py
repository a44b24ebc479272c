"""Names and numbers as short text, for statistics, figures and the page alike."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from spaces.fraction import short_names
from tcpa_core.record.scores import CALLED, is_share

Row = Mapping[Any, Any]
"""One row of a frame, by column."""
NewRow = dict[str, Any]
"""A row that becomes one of a table, by column."""
COMBINATION = "combination"
"""Factor that a factorial design adds: its levels are the runs themselves."""


def is_missing(value: object) -> bool:
    """Whether a cell of a frame has no value: None, NaN or pandas' NA."""
    # pandas' NA first: its comparison is NA again, which has no truth value
    return value is None or value is pd.NA or value != value


def text_or_nothing(value: object) -> str:
    """A cell of a frame as text; "" where it has no value."""
    return "" if is_missing(value) else str(value)


def plain(value: object) -> object:
    """A number of numpy as one of Python, which JSON knows; anything else as it is."""
    return value.item() if hasattr(value, "item") else value


def methods_label(value: object) -> str:
    """'["vpt"]' as "vpt", '["vfpt", "tcpa"]' as "vfpt + tcpa"; another value as it is."""
    if is_missing(value):
        return ""
    text = str(value)
    if not text.startswith("["):
        return text
    try:
        return " + ".join(map(str, json.loads(text)))
    except ValueError:  # as Python writes a list
        return " + ".join(part.strip(" '\"") for part in text.strip("[]").split(","))


def method_column(trials: pd.DataFrame) -> pd.Series:
    """'vpt' or 'vfpt + tcpa' of each trial."""
    if "methods" not in trials:
        return pd.Series("", index=trials.index)
    # A study of thousands of trials has a handful of chains: each is parsed once.
    names = {value: methods_label(value) for value in trials["methods"].unique()}
    return trials["methods"].map(names)


def group_column(trials: pd.DataFrame) -> pd.Series:
    """What each trial is told apart by: its level in a design, else its method.

    Of several factors a level is "factor = level"; a point that is the baseline of all of them is
    "baseline", and one of a factorial is named by all its levels. Data sets are not told apart.
    """
    names = method_column(trials).fillna("")
    if "cells" not in trials or not (trials["cells"] != "[]").any():
        return names
    # Replicates share their cells: each text is parsed once.
    cells = {text: json.loads(text) for text in trials["cells"].unique()}
    factors = dict.fromkeys(cell["factor"] for found in cells.values() for cell in found)
    short = dict(zip(factors, short_names(list(factors)), strict=True))
    labels = {text: _level_name(found, short) for text, found in cells.items() if found}
    return trials["cells"].map(labels).fillna(names)


def _level_name(cells: Sequence[Row], short: Mapping[str, str]) -> str:
    if len(short) == 1:
        return str(cells[0]["level"])
    levels = {cell["factor"]: cell["level"] for cell in cells}
    is_run = levels.pop(COMBINATION, None) is not None
    if not is_run and len(levels) > 1 and all(cell.get("baseline") for cell in cells):
        return "baseline"
    return ", ".join(f"{short[factor]} = {level}" for factor, level in levels.items())


def heading(factor: str, dataset: str) -> str:
    """Name of a table: the factor, and the data set where there are several."""
    return f"{factor} on {dataset}" if dataset else factor


def pair_name(row: Row, *, with_levels: bool) -> str:
    """Name of an interaction: 'a × b', or with their levels 'a=1 × b=2'."""
    names = [row["factor"], row["other"]]
    if with_levels:
        names = [f"{n}={v}" for n, v in zip(names, (row["level"], row["other_level"]), strict=True)]
    return " × ".join(names)


def unspoken(metric: str) -> str:
    """What a score is called within its split: "mIoU"; "": accuracy, which goes without saying."""
    what = CALLED.get(metric, metric).partition(" ")[2]
    return "" if what == "accuracy" else what


def column_head(metric: str) -> str:
    """Head of a column of percents: "val %", "test mIoU %"."""
    return " ".join(filter(None, (metric.partition("_")[0], unspoken(metric), "%")))


def on_val(table: pd.DataFrame) -> pd.DataFrame:
    """Rows of a table of levels that are of val: its `metric` is the score there."""
    return table[table["metric"].str.startswith("val_")]


def plural(count: int, noun: str) -> str:
    """ "1 trial", "2 trials"."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def number(value: object) -> str:
    """Any cell as short text; missing values as nothing."""
    if is_missing(value):
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)


@dataclass(frozen=True, slots=True)
class Quantity:
    """A metric as people write its values: scores in percent, others in their own unit."""

    metric: str
    unit: str = ""
    """As of its column; "fraction" is shown in percent."""

    @property
    def is_share(self) -> bool:
        """Whether values are shown in percent."""
        return self.unit == "fraction"

    @property
    def name(self) -> str:
        """ "val mIoU"; of what is no score its column."""
        return CALLED.get(self.metric, self.metric)

    @property
    def split(self) -> str:
        """ "val" or "test", of scores alone; else ""."""
        return self.metric.partition("_")[0] if is_share(self.metric) else ""

    def on(self, value: str) -> str:
        """A value as text with what it is: "83.3 % on val", "45.2 % mIoU on val" or "val_loss
        0.4821 nat"."""
        what = unspoken(self.metric)
        return f"{value}{what and ' '}{what} on {self.split}" if self.split else (
            f"{self.metric} {value}")  # fmt: skip

    def value(self, value: float) -> str:
        """ "83.3 %" or "0.4821 nat"."""
        if self.is_share:
            return f"{100 * value:.1f} %"
        whole = f"{value:,.0f}" if value == int(value) and abs(value) < 1e15 else f"{value:.4g}"
        return f"{whole} {self.unit}".strip()

    def said(self, value: float) -> str:
        """A value with what it is, as of `on`."""
        return self.on(self.value(value))

    def mean(self, values: list[float], low: float | None, high: float | None) -> str:
        """ "84.6 ± 7.1 %", half of the interval behind the mean; without one the mean alone."""
        mean = sum(values) / len(values)
        if low is None or high is None:
            return self.value(mean)
        scale, digits = (100, ".1f") if self.is_share else (1, ".4g")
        text = f"{scale * mean:{digits}} ± {scale * (high - low) / 2:{digits}}"
        return f"{text} {'%' if self.is_share else self.unit}".strip()

    def difference(self, value: float, low: float | None = None, high: float | None = None) -> str:
        """ "+1.9 points", or with its interval "+1.9 [−7.6, +11.3] points"."""
        interval = "" if low is None or high is None else (
            f" [{self._signed(low)}, {self._signed(high)}]")  # fmt: skip
        return f"{self._signed(value)}{interval} {self._step}".strip()

    def size(self, value: float) -> str:
        """The size of a difference: "12.0 points"."""
        text = f"{100 * value:.1f}" if self.is_share else f"{value:.3g}"
        return f"{text} {self._step}".strip()

    @property
    def _step(self) -> str:
        return "points" if self.is_share else self.unit

    def _signed(self, value: float) -> str:
        # + 0.0 turns a rounded -0.0 into 0.0, which would read as a decrease
        text = f"{round(100 * value, 1) + 0.0:+.1f}" if self.is_share else f"{value:+.3g}"
        return text.replace("-", "−")


STAR_LEVELS = (0.05, 0.01)
"""p below which a difference has a star, and two."""


def p_text(p: float, digits: int = 3) -> str:
    """ "0.024", "<0.001".

    Never rounded across a star's limit: "0.050" beside a star would contradict the legend.
    """
    if p < 0.001:
        return "<0.001"
    for more in (digits, 4, 5):
        text = f"{p:.{more}f}"
        if all((float(text) < level) == (p < level) for level in STAR_LEVELS):
            break
    return text
