"""Names and numbers as short text, for statistics, figures and the page alike."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from spaces.fraction import short_names

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


def methods_label(value: object) -> str:
    """'["vpt"]' as "vpt", '["vfpt", "tcpa"]' as "vfpt + tcpa"; another value as it is."""
    if is_missing(value):
        return ""
    text = str(value)
    if not text.startswith("["):
        return text
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


def number(value: object) -> str:
    """Any cell as short text; missing values as nothing."""
    if is_missing(value):
        return ""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
